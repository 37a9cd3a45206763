r"""What last epochs without augmentation are worth to configs/own_images.py.

Run:     python main.py --mode study --config studies/own_images_refine.py --workdir runs/refine-few
Others:  --config studies/own_images_refine.py:DATASET, what config.dataset takes
Cost:    --dry_run tells.

Held-out training images judge, a tenth of them. CIFAR-10 is cut to 500 images a class, as few as
one's own often are.
"""

from studies import own_images_settings


def get_study(arg=None):
    """Returns the study; `arg` may be another data set than CIFAR-10."""
    return {
        "base": own_images_settings.get_base(arg),
        "variants": {f"refine_{epochs}": {"refine_epochs": epochs} for epochs in (0, 4)},
        "seeds": (0, 1),
        "baseline": "refine_0",
    }
