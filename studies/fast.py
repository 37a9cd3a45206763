r"""Which settings bring mixed mode's two networks soonest to the reference's accuracy (0.7104).

Run:     python main.py --mode study --config studies/fast.py --workdir runs/fast
Decide:  --config studies/fast.py:decide, the two that were left, under three seeds
Fewer:   --config studies/fast.py:fewer, the one taken with fewer images, or narrower
Cost:    one to three minutes a run on one slow CPU core; --dry_run tells.

Held-out training images judge: a tenth of them, another one under each seed. The test set is
balanced and they are not, so their balanced accuracy and their time decide. A variant is named by
the channels of its blocks; the first block's are of the image, but for six of the code.
"""

from typing import Any

from configs import best, fast

WIDTHS = {
    "32_64_128": ((3, 26, True), (32, 64, True), (64, 128, True)),  # mixed.py's
    "24_48_96": ((3, 18, True), (24, 48, True), (48, 96, True)),
    "20_40_80": ((3, 14, True), (20, 40, True), (40, 80, True)),
    "16_32_64": ((3, 10, True), (16, 32, True), (32, 64, True)),
    "20_40_64_64": ((3, 14, True), (20, 40, True), (40, 64, True), (64, 64, True)),
    "16_32_48_96": ((3, 10, True), (16, 32, True), (32, 48, True), (48, 96, False)),
}
RARE = ("bird", "deer", "truck")


def setting(widths: str, rate: float = 3e-3, **changes: Any) -> dict[str, Any]:
    """A variant: two epochs of flips alone, unless `changes` say otherwise."""
    return {
        "cnn.block_sizes": WIDTHS[widths],
        "num_epoch": 2,
        "cnn.opt.lr": rate,
        "cae.opt.lr": rate,
        "aug.hole_probability": 0.0,
        "aug.max_shift": 0,
        **changes,
    }


OF_BEST = best.get_config().aug
SHIFTS_AND_HOLES = {
    "aug.hole_probability": OF_BEST.hole_probability,
    "aug.max_shift": OF_BEST.max_shift,
}
ALL = {
    "32_64_128-shifts_and_holes": setting("32_64_128", **SHIFTS_AND_HOLES),
    **{name: setting(name) for name in WIDTHS},
    "24_48_96-1_epoch": setting("24_48_96", rate=6e-3, num_epoch=1),
    "20_40_80-rate_0.006": setting("20_40_80", rate=6e-3),
    "20_40_80-not_expanded": setting("20_40_80", train_data_expansion={}),
}
DECIDE = {name: ALL[name] for name in ("16_32_48_96", "20_40_80")}
NARROWER: dict[str, Any] = {
    "cnn.block_sizes": ((3, 10, True), (16, 24, True), (24, 48, True), (48, 96, False))
}
FEWER_IMAGES: dict[str, Any] = {  # every class has at most 3,500 an epoch
    "train_data_regulation": {"all": 3500} | dict.fromkeys(RARE, 2500),
    "train_data_expansion": dict.fromkeys(RARE, 1000),
}
FEWER = {
    "16_32_48_96": setting("16_32_48_96"),
    "16_24_48_96": setting("16_32_48_96", **NARROWER),
    "16_32_48_96-fewer_images": setting("16_32_48_96", **FEWER_IMAGES),
    "16_24_48_96-fewer_images": setting("16_32_48_96", **NARROWER, **FEWER_IMAGES),
    "16_24_48_96-fewer_images-rate_0.0045": setting(
        "16_32_48_96", rate=4.5e-3, **NARROWER, **FEWER_IMAGES
    ),
}


def get_study(arg=None):
    """Returns the study; `arg` may be "decide" or "fewer"."""
    if arg not in (None, "", "decide", "fewer"):
        raise ValueError(f"study argument {arg!r}: known are 'decide' and 'fewer'")
    base = fast.get_config()
    base.do_cv, base.do_test, base.num_folds, base.run_folds = True, False, 10, 1
    variants = {"decide": DECIDE, "fewer": FEWER}.get(arg, ALL)
    return {
        "base": base,
        "variants": variants,
        "seeds": (0, 1, 2) if arg else (0,),
        "baseline": next(iter(variants)),
    }
