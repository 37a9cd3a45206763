r"""The reference's mixed mode accuracy soon: its two networks at settings that learn quickly.

Run:     python main.py --config configs/fast.py --workdir runs/fast
Quick:   python main.py --config configs/fast.py:quick --workdir runs/fast-quick
Time:    not measured
Result:  not measured; the reference's mixed mode: test accuracy 0.7104. studies/fast.py chooses the
settings, on held-out training images.
"""

from configs import best, default, mixed


def get_config(arg=None):
    """Returns the experiment; `arg` may be "quick"."""
    config = best.get_config()
    config.cnn.block_sizes = mixed.get_config().cnn.block_sizes  # 114,495 parameters with the CAE
    config.do_cv = False
    config.num_epoch, config.lr_ramp_epochs = 2, 0
    config.save_img_per_epoch = 0
    return default.quick(config) if default.is_quick(arg) else config
