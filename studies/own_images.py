r"""Which CNN serves images of one's own best in the time that one waits: configs/own_images.py.

Run:     python main.py --mode study --config studies/own_images.py --workdir runs/own
Others:  --config studies/own_images.py:DATASET, what config.dataset takes
Cost:    a quarter to half an hour a run on one slow CPU core; --dry_run tells.

Held-out training images judge, a tenth of them; every variant visits as many images, by best.py's
augmentation unless it says otherwise. CIFAR-10 is cut to 500 images a class, as few as one's own
often are. A variant is named by the channels of its blocks, a dash where the image is not halved;
six of the second block's input are the code's.
"""

from typing import Any

from configs import best, own_images

CNN = {
    "42_64-64_96-96": (
        (0, 42, True),
        (48, 64, False),
        (64, 64, True),
        (64, 96, False),
        (96, 96, True),
    ),
    "26_64_128": ((0, 26, True), (32, 64, True), (64, 128, True)),
    "26_48_96-96": ((0, 26, True), (32, 48, True), (48, 96, False), (96, 96, True)),
    "26_64_96_128-": ((0, 26, True), (32, 64, True), (64, 96, True), (96, 128, False)),
}
VARIANTS: dict[str, dict[str, Any]] = {
    name: {"cnn.block_sizes": sizes} for name, sizes in CNN.items()
}
# Images that change less are learnt sooner, and by heart.
LESS_CHANGED: dict[str, dict[str, Any]] = {
    "shifts_of_2.no_holes": {"aug.max_shift": 2, "aug.hole_probability": 0.0},
    "no_holes": {"aug.hole_probability": 0.0},
    "shifts_of_3": {"aug.max_shift": 3},
}
for change, fields in LESS_CHANGED.items():
    VARIANTS[f"26_64_96_128-.{change}"] = {**VARIANTS["26_64_96_128-"], **fields}
NARROW = {
    "cnn.block_sizes": ((0, 18, True), (24, 48, True), (48, 96, True), (96, 128, False)),
    **LESS_CHANGED["no_holes"],
}
VARIANTS["18_48_96_128-.no_holes"] = NARROW
for shift in (3, 2):
    VARIANTS[f"18_48_96_128-.shifts_of_{shift}.no_holes"] = {**NARROW, "aug.max_shift": shift}


def get_study(arg=None):
    """Returns the study; `arg` may be another data set than CIFAR-10."""
    base = own_images.get_config()
    base.dataset = arg or "cifar10"
    base.aug, base.image_budget, base.num_epoch = best.get_config().aug, 540_000, 200
    base.refine_epochs = 0  # these came later: own_images_refine.py
    if base.dataset == "cifar10":
        base.train_data_regulation = {"all": 500}
    base.num_folds, base.run_folds, base.do_test = 10, 1, False
    return {"base": base, "variants": VARIANTS, "seeds": (0,), "baseline": next(iter(VARIANTS))}
