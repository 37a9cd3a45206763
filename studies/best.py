r"""The CNN of configs/best.py and its optimizer, for more epochs in the same time.

Run:     python main.py --mode study --config studies/best.py --workdir runs/best-study
Cost:    a quarter to a third of an hour a run on one slow CPU core; --dry_run tells.

Held-out training images judge, a tenth of them. The CNNs have no more parameters than an earlier
one of best.py, "42 64- 64 96- 96", and are up to twice as quick. A variant is named by the channels
of its blocks, a dash where the image is not halved, and by its optimizer; the CAE's stays Adam.
"""

from typing import Any

from configs import best

DEEP_LATE = ((3, 26, True), (32, 64, True), (64, 88, False), (88, 88, True), (88, 80, False))
DEEP_EARLY = ((3, 26, True), (32, 48, False), (48, 64, True), (64, 96, False), (96, 96, True))
ADAMW: dict[str, Any] = {"cnn.opt.name": "adamw", "cnn.opt.weight_decay": 0.05}
SGD: dict[str, Any] = {
    "cnn.opt.name": "sgd",
    "cnn.opt.lr": 0.05,
    "cnn.opt.momentum": 0.9,
    "cnn.opt.nesterov": True,
    "cnn.opt.weight_decay": 5e-4,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "26_64_88-88_80-.adam": {"cnn.block_sizes": DEEP_LATE},
    "26_48-64_96-96.adam": {"cnn.block_sizes": DEEP_EARLY},
    "26_64_88-88_80-.sgd": {"cnn.block_sizes": DEEP_LATE} | SGD,
    "26_64_88-88_80-.adamw": {"cnn.block_sizes": DEEP_LATE} | ADAMW,
}


def get_study(arg=None):
    """Returns the study; it takes no argument."""
    if arg:
        raise ValueError(f"study argument {arg!r}: this study takes none")
    base = best.get_config()
    base.cnn.opt.update(base.cae.opt)  # Adam
    base.num_epoch, base.save_img_per_epoch = 10, 0
    base.num_folds, base.run_folds, base.do_test = 10, 1, False
    return {"base": base, "variants": VARIANTS, "seeds": (0,), "baseline": next(iter(VARIANTS))}
