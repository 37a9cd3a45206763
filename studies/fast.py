r"""Which settings bring mixed mode's two networks soonest to the reference's accuracy (0.7104).

Run:     python main.py --mode study --config studies/fast.py --workdir runs/fast
Cost:    about a minute a run on two CPU cores, so two hours for all; --dry_run tells.

Held-out training images judge: a tenth of them, another one under each seed. The page's chart of
accuracy against time shows what pays; configs/fast.py holds what was chosen.
"""

from caecnn_jax import study
from configs import fast

RATES = {
    f"rate_{rate:g}": {"cnn.opt.lr": rate, "cae.opt.lr": rate} for rate in (3e-3, 6e-3, 1.2e-2)
}
BATCHES = {f"batch_{size}": {"batch_size": size} for size in (32, 64, 128)}
AUGMENTATIONS = {  # beside best.py's shifts and holes
    "shifts": {"aug.hole_probability": 0.0, "aug.max_shift": 2},
    "flips": {"aug.hole_probability": 0.0, "aug.max_shift": 0},
}
VISITS = {"1_epoch": {"num_epoch": 1}, "2_epochs": {"num_epoch": 2}}


def get_study():
    """Returns the study."""
    base = fast.get_config()
    base.do_cv, base.do_test, base.num_folds, base.run_folds = True, False, 10, 1
    return {
        "base": base,
        "variants": study.product(VISITS, RATES, BATCHES)
        | study.product(VISITS, {"rate_0.006": RATES["rate_0.006"]}, AUGMENTATIONS),
        "seeds": (0, 1, 2),
        "baseline": "2_epochs-rate_0.003-batch_64",
    }
