r"""CAE and CNN jointly; the encoder's code is mixed into the CNN's first feature maps.

Run:     python main.py --config configs/mixed.py --workdir runs/mixed
Quick:   python main.py --config configs/mixed.py:quick --workdir runs/mixed-quick
Reference: 5-fold mean validation accuracy 0.7404, test accuracy 0.7104.
"""

from configs import default


def get_config(arg=None):
    """Returns the experiment; `arg` may be "quick"."""
    return default.variant(
        arg,
        use_cae=True,
        only_train_cae_until=50,
        train_data_expansion={"bird": 2000, "truck": 2000, "deer": 2000},
        cnn={
            "use_mixed_input": True,
            # 26 channels of the image and 6 of the code make the second block's 32.
            "block_sizes": ((3, 26, True), (32, 64, True), (64, 128, True)),
        },
    )
