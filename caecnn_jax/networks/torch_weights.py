"""Weights from and to the reference's PyTorch state dict, {name: ndarray}, without PyTorch.

Layouts: PyTorch's conv weights are [out, in, row, column], its transposed conv's [in, out, row,
column] and applied mirrored, its dense weights [out, in] on an input flattened channels first.
"""

from collections.abc import Iterator, Mapping

import jax
import ml_collections
import numpy as np

from caecnn_jax import blocks as blocks_lib
from caecnn_jax import config as config_lib
from caecnn_jax.networks import models

# (PyTorch's name, ours) of what a BatchNorm has, by the collection that it lies in.
_NORM = {
    "params": (("weight", "scale"), ("bias", "bias")),
    "batch_stats": (("running_mean", "mean"), ("running_var", "var")),
}


def _layers(config: ml_collections.ConfigDict) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(PyTorch's prefix, our path, kind) of each layer; kind: conv, transposed, norm or dense."""
    both = config.use_cae and config.use_cnn
    if config.use_cae:
        prefix = "cae." if both else ""
        for index in range(len(config.cae.enc_block_sizes)):  # conv, pool, activation, norm
            path = ("cae", "encoder")
            yield f"{prefix}encoder.{4 * index}", (*path, f"conv_{index + 1}"), "conv"
            yield f"{prefix}encoder.{4 * index + 3}", (*path, f"norm_{index + 1}"), "norm"
        for index in range(len(config.cae.dec_block_sizes)):  # conv, activation, norm
            path = ("cae", "decoder")
            yield f"{prefix}decoder.{3 * index}", (*path, f"conv_{index + 1}"), "transposed"
            yield f"{prefix}decoder.{3 * index + 2}", (*path, f"norm_{index + 1}"), "norm"
    if config.use_cnn and both and config.cnn.use_mixed_input:
        for index in range(1, len(config.cnn.block_sizes) + 1):
            yield f"cnn.conv{index}", ("cnn", f"conv_{index}"), "conv"
            yield f"cnn.bn{index}", ("cnn", f"norm_{index}"), "norm"
        yield "cnn.linear", ("cnn", "dense"), "dense"
    elif config.use_cnn:
        prefix, position = "cnn." if both else "", 0
        for index, (*_, pool) in enumerate(config.cnn.block_sizes, 1):
            yield f"{prefix}main.{position}", ("cnn", f"conv_{index}"), "conv"
            position += 3 if pool else 2  # conv, perhaps pool, activation
            yield f"{prefix}main.{position}", ("cnn", f"norm_{index}"), "norm"
            position += 1
        yield f"{prefix}main.{position + 1}", ("cnn", "dense"), "dense"  # after the flattening


def _flat_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int]:
    """(channels, rows, columns) of the feature maps that the dense layer reads."""
    blocks = config.cnn.block_sizes
    resolution = config.image_size
    if blocks_lib.reads_code(config):
        resolution = blocks_lib.code_resolution(config)
    size = resolution // 2 ** sum(pool for *_, pool in blocks)
    channels = blocks[-1][1]
    if config.use_cae and config.cnn.use_mixed_input and len(blocks) == 1:
        channels += config.cae.enc_block_sizes[-1][1]
    return channels, size, size


def from_torch(state_dict: Mapping[str, np.ndarray], config: ml_collections.ConfigDict) -> dict:
    """{"params", "batch_stats"} for the config's model, with the arrays' own dtype.

    The arrays tell how many classes and image channels there are. Raises ConfigError where the
    state dict lacks a name, has one too many, or a shape disagrees.
    """
    _check_names(state_dict, config)
    _check_shapes(state_dict, config)
    variables: dict = {"params": {}, "batch_stats": {}}

    def take(name: str) -> np.ndarray:
        return np.asarray(state_dict[name])

    for prefix, path, kind in _layers(config):
        if kind == "norm":
            for collection, names in _NORM.items():
                leaf = {ours: take(f"{prefix}.{theirs}") for theirs, ours in names}
                _put(variables[collection], path, leaf)
            continue
        weight = take(f"{prefix}.weight")
        if kind == "conv":
            kernel = weight.transpose(2, 3, 1, 0)
        elif kind == "transposed":
            kernel = weight.transpose(2, 3, 0, 1)[::-1, ::-1]
        else:
            channels_first = weight.reshape(-1, *_flat_shape(config))
            kernel = channels_first.transpose(2, 3, 1, 0).reshape(-1, len(weight))
        leaf = {"kernel": np.ascontiguousarray(kernel)}
        if _has_bias(kind, config):
            leaf["bias"] = take(f"{prefix}.bias")
        _put(variables["params"], path, leaf)
    return variables


def _names(kind: str, config: ml_collections.ConfigDict) -> list[str]:
    """PyTorch's names of what a layer of the kind has."""
    if kind == "norm":
        return [theirs for names in _NORM.values() for theirs, _ in names]
    return ["weight", "bias"] if _has_bias(kind, config) else ["weight"]


def _has_bias(kind: str, config: ml_collections.ConfigDict) -> bool:
    return not (kind == "dense" and config.cnn.head == "cosine")


def _check_names(state_dict: Mapping[str, np.ndarray], config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError unless the names are those of the config's model."""
    given = {name for name in state_dict if not name.endswith("num_batches_tracked")}
    wanted = [
        f"{prefix}.{name}" for prefix, _, kind in _layers(config) for name in _names(kind, config)
    ]
    for name in wanted:
        if name not in given:
            raise config_lib.ConfigError(
                f"the PyTorch weights lack {name!r}, which config asks for"
            )
    if extra := sorted(given - set(wanted)):
        raise config_lib.ConfigError(
            f"the PyTorch weights hold {extra[0]!r}, which the config's model lacks"
        )


def _check_shapes(state_dict: Mapping[str, np.ndarray], config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError unless the shapes are those of the config's model."""
    first, *_, last = (f"{prefix}.weight" for prefix, _, kind in _layers(config) if kind != "norm")
    model = models.from_config(
        config,
        num_classes=_length(state_dict, last, 2, axis=0) if config.use_cnn else None,
        channels=_length(state_dict, first, 4, axis=1),
    )
    image = jax.ShapeDtypeStruct((1, *model.image_shape), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    wanted = to_torch(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes), config)
    for name, array in wanted.items():
        shape = np.shape(state_dict[name])
        if shape != array.shape:
            raise config_lib.ConfigError(
                f"the PyTorch weights' {name!r} has shape {shape}, but config asks for "
                f"{array.shape}"
            )


def _length(state_dict: Mapping[str, np.ndarray], name: str, dimensions: int, *, axis: int) -> int:
    """How long the named weight is along an axis; raises ConfigError where it lacks dimensions."""
    shape = np.shape(state_dict[name])
    if len(shape) != dimensions:
        raise config_lib.ConfigError(
            f"the PyTorch weights' {name!r} has shape {shape}, but config asks for {dimensions} "
            "dimensions"
        )
    return shape[axis]


def to_torch(variables: Mapping, config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`: {name: ndarray} with the reference's names and layouts."""
    state_dict: dict[str, np.ndarray] = {}
    for prefix, path, kind in _layers(config):
        if kind == "norm":
            for collection, names in _NORM.items():
                leaf = _get(variables[collection], path)
                state_dict |= {
                    f"{prefix}.{theirs}": np.asarray(leaf[ours]) for theirs, ours in names
                }
            continue
        leaf = _get(variables["params"], path)
        kernel = np.asarray(leaf["kernel"])
        if kind == "conv":
            weight = kernel.transpose(3, 2, 0, 1)
        elif kind == "transposed":
            weight = kernel[::-1, ::-1].transpose(2, 3, 0, 1)
        else:
            channels, rows, columns = _flat_shape(config)
            channels_last = kernel.reshape(rows, columns, channels, -1)
            weight = channels_last.transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1)
        state_dict[f"{prefix}.weight"] = np.ascontiguousarray(weight)
        if _has_bias(kind, config):
            state_dict[f"{prefix}.bias"] = np.asarray(leaf["bias"])
    return state_dict


def _put(tree: dict, path: tuple[str, ...], leaf) -> None:
    *parents, name = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[name] = leaf


def _get(tree: Mapping, path: tuple[str, ...]):
    for name in path:
        tree = tree[name]
    return tree
