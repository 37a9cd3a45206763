r"""What each setting of configs/best.py is worth, judged on images held out of the training set.

Run:     python main.py --mode study --config studies/ablation.py --workdir runs/ablation
Cost:    --dry_run tells; four epochs a run, so that a variant under one seed takes a few minutes.

A tenth of the training images is held out, so that no choice is made on the test set. A variant
changes one thing of best.py, the whole of it where it says "reference".
"""

from typing import Any

from configs import best, default, mixed

REFERENCE = default.get_config()
NO_EXPANSION: dict[str, Any] = {"train_data_expansion": {}}
ABLATED = {
    "best": {},
    "reference_widths": {"cnn.block_sizes": mixed.get_config().cnn.block_sizes},
    "three_blocks_as_many_parameters": {
        "cnn.block_sizes": ((3, 58, True), (64, 100, True), (100, 148, True))
    },
    "reference_augmentation": {"aug": REFERENCE.aug.to_dict()},
    "constant_rate": {"lr_schedule": "constant"},
    "reference_rates_and_betas": {
        f"{part}.opt": REFERENCE[part].opt.to_dict() for part in ("cae", "cnn")
    },
    "no_expansion": NO_EXPANSION,
    "logit_adjustment_for_expansion": NO_EXPANSION | {"cnn.loss.logit_adjustment": 1.0},
}


def get_study():
    """Returns the study."""
    base = best.get_config()
    base.num_epoch = 4
    base.do_test, base.num_folds, base.run_folds = False, 10, 1
    return {"base": base, "variants": ABLATED, "seeds": (0, 1, 2), "baseline": "best"}
