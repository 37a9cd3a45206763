"""A study of 2 variants under 2 seeds on tiny data, as one process, for test_parts.py.

Run:  python tests/study_job.py WORKDIR [INDEX COUNT]
"""

import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parent.parent), str(pathlib.Path(__file__).parent)]

from builders import make_data, tiny_config  # noqa: E402

from caecnn_jax import errors, logs, study  # noqa: E402
from caecnn_jax.part import Part  # noqa: E402
from caecnn_jax.records import workdir  # noqa: E402
from caecnn_jax.training import devices, parts  # noqa: E402


def make_study(**changes) -> study.Study:
    """Two variants that compile alike, for they differ in their epochs' images alone."""
    base = tiny_config("cnn", save_img_per_epoch=0, do_test=False)
    base.train_data_expansion = {}
    variants = {"plain": {}, "expanded": {"train_data_expansion": {"bird": 6}}}
    fields = {"base": base, "variants": variants, "seeds": (0, 1), "baseline": "plain"}
    return study.expand("tiny", fields | changes)


def main(folder: str, index: str = "0", count: str = "1") -> int:
    """Trains the part."""
    logs.to_console("INFO")
    devices.start("float32")
    data = make_data()
    try:
        runs = Part(int(index), int(count)).of(make_study().runs)
        failed = parts.train_all(runs, workdir.resolve(folder), load=lambda config: data)
    except errors.Interrupted as stop:
        return 128 + stop.signum
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
