r"""The reference's six published experiments, with its quirks, beside the published figures.

Run:     python main.py --mode study --config studies/reference.py --workdir runs/reference
Quick:   --config studies/reference.py:quick, ten epochs of the first fold, two of them warm-up
Cost:    days on two CPU cores; --dry_run tells.

The test run's training set is not expanded, and the test set stops it early, as in the reference.
Where it published no test accuracy there is no test run. results/published.json has its F1 of each
class.
"""

from configs import default

RARE = ("bird", "deer", "truck")
OVERSAMPLED = {"train_data_expansion": dict.fromkeys(RARE, 2000)}
JOINT = OVERSAMPLED | {"use_cae": True}
EXPERIMENTS = {
    "cnn_no_aug": {"use_aug": False},
    "cnn_small_data": {"use_aug": False, "train_data_regulation": {"all": 2500}},
    "cnn_aug": {},
    "cnn_oversampled": OVERSAMPLED,
    "code": JOINT | {"cnn.block_sizes": ((6, 32, False), (32, 64, True), (64, 128, True))},
    "mixed": JOINT
    | {
        "cnn.use_mixed_input": True,
        "cnn.block_sizes": ((3, 26, True), (32, 64, True), (64, 128, True)),
    },
}
PUBLISHED = {
    "source": "the reference program's README and notebooks: at the last epoch of up to 400 with "
    "early stopping, means of five folds; seeds and hardware are not stated",
    "cv": {
        "cnn_no_aug": 0.7010,
        "cnn_small_data": 0.6677,
        "cnn_aug": 0.7420,
        "cnn_oversampled": 0.7432,
        "code": 0.7187,
        "mixed": 0.7404,
    },
    "test": {"cnn_oversampled": 0.7052, "mixed": 0.7104},
}


def get_study(arg=None):
    """Returns the study; `arg` may be "quick"."""
    quick = default.is_quick(arg)
    base = default.get_config()
    base.expand_for_test, base.test_early_stopping = False, True
    base.num_epoch, base.run_folds = (10, 1) if quick else (400, 0)
    warmup = {"only_train_cae_until": 2 if quick else 50}
    variants = {
        name: changes
        | (warmup if "use_cae" in changes else {})
        | {"do_test": name in PUBLISHED["test"]}
        for name, changes in EXPERIMENTS.items()
    }
    return {
        "base": base,
        "variants": variants,
        "seeds": (0,),
        "baseline": "cnn_aug",
        "published": PUBLISHED,
    }
