r"""The CNN alone on class-imbalanced CIFAR-10, nothing oversampled.

Run:     python main.py --config configs/cnn.py --workdir runs/cnn
Quick:   python main.py --config configs/cnn.py:quick --workdir runs/cnn-quick
Reference: 5-fold mean validation accuracy 0.7420 (0.7010 with --config.use_aug=False).
"""

from configs import default


def get_config(arg=None):
    """Returns the experiment; `arg` may be "quick"."""
    return default.variant(arg)
