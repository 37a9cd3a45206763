"""Settings of a valid config that come too late, or end too soon, to have an effect."""

import ml_collections
from absl import logging

from caecnn_jax import config as config_lib


def warn_of(config: ml_collections.ConfigDict) -> None:
    """Logs `warnings`."""
    for sentence in warnings(config):
        logging.warning(sentence)


def warnings(config: ml_collections.ConfigDict) -> list[str]:
    """A sentence for each setting of a valid config that will have no effect in its epochs."""
    warmup, sentences = config.only_train_cae_until, []
    joint = max(0, config.num_epoch - config_lib.warmup_epochs(config))
    if not joint:
        sentences.append(
            f"config.only_train_cae_until={warmup}: warm-up takes all {config.num_epoch} "
            "epochs, and the CNN is never trained: lower it, or raise config.num_epoch"
        )
    weights, deferred = config.cnn.loss.class_weights, config.cnn.loss.deferred_until
    balanced = config.balanced_batches_from
    late = {
        f"cnn.loss.deferred_until={deferred}: the class weights count": weights != "none"
        and deferred >= joint,
        f"balanced_batches_from={balanced}: batches are balanced": balanced > joint,
    }
    if config.use_cnn and joint:
        sentences += [
            f"config.{setting} in none of the {joint} epochs in which the CNN trains"
            for setting, is_late in late.items()
            if is_late
        ]
    if warmup and not config.use_cnn:
        sentences.append(
            f"config.only_train_cae_until={warmup}: without a CNN every epoch trains the CAE alone"
        )
    rising = joint or config.num_epoch
    if config.lr_ramp_epochs >= rising:
        sentences.append(
            f"config.lr_ramp_epochs={config.lr_ramp_epochs}: the learning rate rises during all "
            f"{rising} epochs{' in which the CNN trains' if rising < config.num_epoch else ''}"
        )
    if joint and config.lr_milestones and config.lr_milestones[-1] >= joint:
        sentences.append(
            f"config.lr_milestones={config.lr_milestones}: the learning rate would step for the "
            f"last time after all {joint} epochs"
        )
    if config.refine_epochs >= config.num_epoch and (config.use_aug or config.mixup_alpha):
        sentences.append(
            f"config.refine_epochs={config.refine_epochs}: in all {config.num_epoch} epochs images "
            "are flipped at most, and never mixed: lower it, or train longer"
        )
    return sentences


def warn_of_padding(batch_size: int, images: int) -> None:
    """Logs that most of every step is padding, where a run has far fewer images than a batch."""
    if batch_size > 2 * images:
        logging.warning(
            "config.batch_size=%d: no epoch visits more than %d images, and the rest of each step "
            "is padding, which takes its time: lower it",
            batch_size,
            images,
        )
