r"""CAE and CNN jointly; the CNN reads the encoder's code in place of the image.

Run:     python main.py --config configs/code.py --workdir runs/code
Quick:   python main.py --config configs/code.py:quick --workdir runs/code-quick
Reference: 5-fold mean validation accuracy 0.7187.
"""

from configs import default


def get_config(arg=None):
    """Returns the experiment; `arg` may be "quick"."""
    return default.variant(
        arg,
        use_cae=True,
        only_train_cae_until=50,
        train_data_expansion={"bird": 2000, "truck": 2000, "deer": 2000},
        cnn={"block_sizes": ((6, 32, False), (32, 64, True), (64, 128, True))},
    )
