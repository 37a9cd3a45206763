r"""CIFAR-10-LT by the field's protocol and recipe, on the networks of best.py's CNN alone.

Run:     python main.py --config configs/long_tail.py --workdir runs/long-tail
Others:  --config configs/long_tail.py:10, :50, :100 or :step-100, with :quick after it if wanted
Method:  --config.cnn.loss.logit_adjustment=1.0, for example; docs/rare-classes.md has them all
Time:    not measured
Result:  not measured

The argument is the imbalance factor, the largest class over the smallest: 10, 50 or 100 (the
default) of the exponential profile, step-100 where the second half of the classes has a hundredth.
Data, optimizer, schedule and epochs are those of Cao et al. 2019 (cifar_train.py of LDAM-DRW),
whose network is ResNet-32; it pads the shifted image with zeros, ours mirrors its border. What they
report is the best epoch on the test set; here it is the last one.
"""

from configs import best, default

FACTORS = ("10", "50", "100", "step-100")


def get_config(arg=None):
    """Returns the experiment; `arg` may be one of FACTORS, "quick", or both: "100:quick"."""
    factor, _, quick = (arg or "").partition(":")
    if factor not in FACTORS:
        factor, quick = "100", arg
    if quick not in (None, "", "quick"):
        known = ", ".join(FACTORS)
        raise ValueError(f"config argument {arg!r}: known are {known}, 'quick' or {factor}:quick")
    # The CNN that reads the image alone: best.py's joins 6 channels of code to its first ones.
    (_, _, pools), second, *others = best.get_config().cnn.block_sizes
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4}
    config = default.get_config()
    config.update(
        imbalance={"type": "step" if factor.startswith("step") else "exp"},
        aug={"max_angle": 0.0, "scale_range": (1.0, 1.0), "max_shift": 4, "hole_probability": 0.0},
        cnn={"block_sizes": ((3, second[0], pools), second, *others), "opt": sgd},
        do_cv=False,
        cv_early_stopping=False,  # before a step nothing may get better for long
        num_epoch=200,
        batch_size=128,
        lr_schedule="step",
        lr_ramp_epochs=5,
        lr_milestones=(160, 180),
        lr_factors=(0.01, 0.0001),
    )
    config.imbalance.factor = float(factor.removeprefix("step-"))
    config.train_data_regulation = {}
    if quick:  # all images, a tenth of the epochs
        config.num_epoch, config.lr_ramp_epochs, config.lr_milestones = 20, 1, (16, 18)
        config.save_img_per_epoch = 5
    return config
