"""How the learning rates change over a run, as factors of config.cnn.opt.lr and config.cae.opt.lr.

A factor is a function of epoch and step alone, so that a resumed run needs nothing saved for it.
"""

import ml_collections
import numpy as np
import optax


def lr_factors(
    config: ml_collections.ConfigDict, epoch: int, num_steps: int
) -> dict[str, np.ndarray]:
    """The factors float32 [num_steps] of an epoch's steps, for each part that the config trains.

    A part's schedule runs over the epochs that it trains in: warm-up does not count for the CNN,
    whose factors are those of its first epoch until then.
    """
    starts = {}
    if config.use_cae:
        starts["cae"] = 0
    if config.use_cnn:
        starts["cnn"] = min(config.only_train_cae_until, config.num_epoch)
    return {
        part: _factors(config, epoch - start, config.num_epoch - start, num_steps)
        for part, start in starts.items()
    }


def _factors(config, epoch: int, num_epoch: int, num_steps: int) -> np.ndarray:
    # Steps as floats, since there may be more of them than an int32 holds.
    ramp = float(config.lr_ramp_epochs * num_steps)
    after = optax.constant_schedule(1.0)
    if config.lr_schedule == "cosine":
        after = optax.cosine_decay_schedule(1.0, max(num_epoch * num_steps - ramp, 1.0))
    rising = optax.linear_schedule(0.0, 1.0, max(ramp, 1.0))
    schedule = optax.join_schedules([rising, after], [ramp])
    step = (max(epoch, 1) - 1.0) * num_steps + np.arange(num_steps)
    return np.broadcast_to(np.asarray(schedule(step), np.float32), num_steps)
