import json

import pytest
import synthetic_runs
from builders import ABOUT
from etils import epath

from caecnn_jax.records import about
from caecnn_jax.reports import compare, entries, pages


def variant(root, name, **options):
    return synthetic_runs.make_run(root / name, num_epoch=3, seed=5, **options)


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    folders = [variant(tmp_path / name, "run", num_folds=2) for name in ("a", "b")]
    assert [entry.name for entry in entries.read(folders)] == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"use_cnn": False}, "trained no CNN"),
        ({"finished": False}, "unfinished"),
        ({"data_digest": "d1"}, "different images of their data set: .* same seed"),
        ({"data_digest": None}, "data_digest"),
        ({"fold_seed": 1}, "different folds"),
        ({"num_folds": 3}, "different folds"),
        ({"num_folds": 0, "test": True}, None),
    ],
)
def test_what_cannot_be_compared_is_refused(folders, tmp_path, options, words):
    other = variant(tmp_path, "other", **options)
    if words is None:  # the counter-check: a shared test run is enough
        entries.check(entries.read([folders[0], other]))
        return
    with pytest.raises(pages.ReportError, match=words) as error:
        compare.write([folders[0], other], tmp_path / "out")
    assert str(other) in str(error.value) and not (tmp_path / "out").exists()


def test_runs_of_different_data_sets_are_refused_as_such(folders, tmp_path):
    other = variant(tmp_path, "other")
    config = json.loads((other / "config.json").read_text()) | {"format": 2}
    (other / "config.json").write_text(json.dumps(config))
    about.write_description(epath.Path(other), ABOUT._replace(digest="another"))
    with pytest.raises(pages.ReportError, match=r"different data sets, .* the same digest$"):
        entries.check(entries.read([folders[0], other]))


def test_runs_that_share_no_part_are_refused(tmp_path):
    cv = variant(tmp_path, "cv", test=False)
    test = variant(tmp_path, "test", num_folds=0)
    with pytest.raises(pages.ReportError, match="share neither folds nor test"):
        entries.check(entries.read([cv, test]))


def test_one_run_or_the_same_twice_is_refused(folders):
    for given in (folders[:1], [folders[0], folders[0]]):
        with pytest.raises(pages.ReportError, match="two or more different folders"):
            entries.check(entries.read(given))


def test_entries_may_be_named_one_by_one(seeds):
    given = [f"a={seeds}/cnn-0", seeds / "mixed-0", f"a={seeds}/cnn-1", f"b={seeds}/*-2"]
    found = entries.read(given)
    assert {entry.name: [run.name for run in entry.runs] for entry in found} == {
        "a": ["cnn-0", "cnn-1"],
        "b": ["cnn-2", "mixed-2"],
        "mixed-0": ["mixed-0"],
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a={0}/cnn-*", "b={0}/mixed-[01]"], "a has the seeds|b has the seeds 0, 1 and a 0, 1, 2"),
        (["a={0}/*-2", "b={0}/cnn-[01]"], "a holds two runs of one seed"),
        (["a={0}/cnn-*", "b={0}/none-*"], "no run's folder is called"),
        (["a={0}/cnn-*"], "two or more different folders"),
        (["a={0}/cnn-*", "b={0}/cnn-*"], "two or more different folders"),
    ],
)
def test_seeds_that_do_not_pair_are_refused(seeds, given, words):
    with pytest.raises(pages.ReportError, match=words):
        entries.check(entries.read([item.format(seeds) for item in given]))


def test_runs_of_different_configs_have_no_mean(seeds):
    path = seeds / "cnn-1" / "config.json"
    before = path.read_text()
    config = json.loads(before)
    config["cnn"]["opt"]["lr"] *= 2
    path.write_text(json.dumps(config | {"data_dir": "elsewhere", "keep_checkpoints": 7}))
    try:
        compared = entries.read([f"a={seeds}/cnn-*", f"b={seeds}/mixed-*"])
        with pytest.raises(pages.ReportError, match=r"cnn-1 differ in config\.cnn\.opt\.lr"):
            entries.check(compared)
    finally:
        path.write_text(before)
