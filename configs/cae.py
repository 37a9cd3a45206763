r"""The convolutional autoencoder alone.

Run:     python main.py --config configs/cae.py --workdir runs/cae
Quick:   python main.py --config configs/cae.py:quick --workdir runs/cae-quick
Reference: no published figure.
"""

from configs import default


def get_config(arg=None):
    """Returns the experiment; `arg` may be "quick"."""
    return default.variant(
        arg,
        use_cnn=False,
        use_cae=True,
    )
