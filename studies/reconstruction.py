r"""Whether the autoencoder helps the classifier, and the rare classes.

Run:     python main.py --mode study --config studies/reconstruction.py --workdir runs/recon
Weights: --config studies/reconstruction.py:weights, other weights of its loss, and warm-up
Few:     --config studies/reconstruction.py:few, with 1, 10 and 100 % of the training images
Test:    --config studies/reconstruction.py:test, the rows that decide, once, on the test set
Cost:    --dry_run tells.

The classifier's widths are the reference's, and the same in all: its second block reads 32
channels, of the image alone (32), of the image and the code (26 and 6, as many parameters), or
block 1 reads the code. Settings are those of best.py, so that all train well, in fewer epochs.
Held-out training images judge: a tenth of them, another one under each seed.

The reference's figures say that the autoencoder does not help (0.7404 with, 0.7432 without); Le,
Patterson and White 2018, "Supervised autoencoders", say that reconstruction can regularise.
"""

from caecnn_jax import study
from configs import best, cnn, code, mixed

RARE = ("bird", "deer", "truck")
IMBALANCES = {
    "reference": {
        "num_epoch": 6,  # of 44,250 images; those of warm-up included
        "train_data_regulation": dict.fromkeys(RARE, 2500),
        "train_data_expansion": dict.fromkeys(RARE, 2000),
    },
    "long_tail": {
        "num_epoch": 16,  # of 11,160 images
        "imbalance.type": "exp",
        "imbalance.factor": 100.0,
        "train_data_regulation": {},
        "train_data_expansion": {},
    },
}
SHARES = {  # of the training images, balanced; the fewer there are, the more folds judge
    f"{percent}_percent": {
        "train_data_regulation": {"all": 50 * percent},
        "train_data_expansion": {},
        "run_folds": run_folds,
    }
    for percent, run_folds in ((1, 5), (10, 1), (100, 1))
}
CNN = {
    "use_cae": False,
    "cnn.use_mixed_input": False,
    "cnn.block_sizes": cnn.get_config().cnn.block_sizes,
}
CODE = {"cnn.use_mixed_input": False, "cnn.block_sizes": code.get_config().cnn.block_sizes}
WARMUP = {"only_train_cae_until": 2}


def mixed_mode(weight: float) -> dict:
    """Mixed mode with this weight of the reconstruction's loss."""
    return {"cae.loss_weight": weight}


DECIDE = {
    "cnn": CNN,
    "mixed_0": mixed_mode(0.0),
    "mixed_1": mixed_mode(1.0),
    "code": CODE,
}
WEIGHTS = {
    "cnn": CNN,
    "mixed_0.1": mixed_mode(0.1),
    "mixed_10": mixed_mode(10.0),
    "mixed_1_warmup": mixed_mode(1.0) | WARMUP,
    "code_warmup": CODE | WARMUP,
}
SEEDS = {"": 5, "weights": 3, "few": 2, "test": 1}  # the rows that decide are held-out ones


def get_study(arg=None):
    """Returns the study; `arg` may be "weights", "few" or "test"."""
    if (arg or "") not in SEEDS:
        raise ValueError(f"study argument {arg!r}: known are 'weights', 'few' and 'test'")
    base = best.get_config()
    base.cnn.block_sizes, base.cv_early_stopping = mixed.get_config().cnn.block_sizes, False
    base.cnn.opt.update(base.cae.opt)  # Adam for all
    base.save_img_per_epoch = 0
    base.do_cv, base.do_test = arg != "test", arg == "test"
    base.num_folds, base.run_folds = 10, 1
    base.selection_metric = "balanced_accuracy"
    axis, networks = IMBALANCES, DECIDE
    if arg == "weights":
        networks = WEIGHTS
    elif arg == "few":
        axis = SHARES
        # All visit as many images, in at most 100 epochs: the fewer there are, the more epochs.
        base.num_epoch, base.image_budget, base.num_folds = 100, 270_000, 5
    variants = study.product(axis, networks)
    return {
        "base": base,
        "variants": variants,
        "seeds": tuple(range(SEEDS[arg or ""])),
        "baseline": {name: f"{name.partition('-')[0]}-cnn" for name in variants},
    }
