import pytest
import synthetic_runs


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        synthetic_runs.make_run(root / "cnn", use_cae=False, num_epoch=6, seed=1, skill=0.70),
        synthetic_runs.make_run(root / "mixed", num_epoch=8, seed=2, skill=0.76),
    ]


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of two configs: cnn-0 ... and mixed-0 ..., with the same data for a seed."""
    for seed in range(3):
        for name, skill in (("cnn", 0.70), ("mixed", 0.74)):
            synthetic_runs.make_run(
                tmp_path / f"{name}-{seed}",
                num_folds=2,
                num_epoch=3,
                skill=skill,
                seed=seed,
                data_digest=f"d{seed}",
                fold_seed=seed,
            )
    return tmp_path
