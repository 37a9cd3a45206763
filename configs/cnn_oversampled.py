r"""The CNN alone, each rare class oversampled by 2,000 images.

Run:     python main.py --config configs/cnn_oversampled.py --workdir runs/cnn_oversampled
Quick:   python main.py --config configs/cnn_oversampled.py:quick --workdir runs/oversampled-quick
Reference: 5-fold mean validation accuracy 0.7432, test accuracy 0.7052.
"""

from configs import default


def get_config(arg=None):
    """Returns the experiment; `arg` may be "quick"."""
    return default.variant(
        arg,
        train_data_expansion={"bird": 2000, "truck": 2000, "deer": 2000},
    )
