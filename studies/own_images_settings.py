r"""What single settings of configs/own_images.py are worth, to few images and to many.

Run:     python main.py --mode study --config studies/own_images_settings.py --workdir runs/own-few
Others:  --config studies/own_images_settings.py:DATASET, what config.dataset takes
Cost:    --dry_run tells.

Held-out training images judge, a tenth of them; a variant changes of the config what its name says.
CIFAR-10 is cut to 500 images a class, as few as one's own often are.
"""

from configs import own_images

LONG_TAIL = {"imbalance.type": "exp", "imbalance.factor": 100.0}
SMOOTHED = {"cnn.loss.label_smoothing": 0.1}
SETTINGS = {
    "own_images": {},
    "shifts_of_3": {"aug.max_shift": 3},
    "shifts_of_3.smoothed_labels": {"aug.max_shift": 3, **SMOOTHED},
    "rate_0.0015": {"cnn.opt.lr": 1.5e-3, "cae.opt.lr": 1.5e-3},
    "smoothed_labels": SMOOTHED,
    "long_tail": LONG_TAIL,
    "long_tail.smoothed_labels": {**LONG_TAIL, **SMOOTHED},
}


def get_base(dataset=None):
    """The config as it is, a tenth of the training images of `dataset` held out."""
    base = own_images.get_config()
    base.dataset = dataset or "cifar10"
    if base.dataset == "cifar10":
        base.train_data_regulation = {"all": 500}
    base.num_folds, base.run_folds, base.do_test = 10, 1, False
    base.save_img_per_epoch = 0
    return base


def get_study(arg=None):
    """Returns the study; `arg` may be another data set than CIFAR-10."""
    base, variants = get_base(arg), dict(SETTINGS)
    base.refine_epochs = 0  # these came later: own_images_refine.py
    if base.dataset == "cifar10":  # as few leave nothing of a long tail
        variants = {name: of for name, of in SETTINGS.items() if of.keys().isdisjoint(LONG_TAIL)}
    return {
        "base": base,
        "variants": variants,
        "seeds": (0,),
        "baseline": {
            name: "long_tail" if name.startswith("long_tail") else "own_images" for name in variants
        },
    }
