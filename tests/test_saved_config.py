"""Tests of caecnn_jax.saved_config: a run's config as it is saved, and read again."""

import ml_collections
from builders import tiny_config

from caecnn_jax import saved_config


def test_a_class_with_a_dot_in_its_name_is_read_again():
    config = tiny_config()
    counts = ml_collections.ConfigDict({"E. coli": 4}, allow_dotted_keys=True)
    config.train_data_regulation = config.train_data_expansion = counts
    read = saved_config.from_text(saved_config.to_text(config))
    assert read.train_data_regulation.to_dict() == {"E. coli": 4}
    assert saved_config.to_text(read) == saved_config.to_text(config)
