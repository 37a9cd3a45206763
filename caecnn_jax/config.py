"""Checks a config before any data is read: every field's type and range, and how fields agree."""

import difflib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ml_collections

from caecnn_jax import errors

# Far above any use, and low enough to fail here, not in memory: of a block, and of an expansion.
MAX_CHANNELS, MAX_EXTRA = 4096, 100_000
MAX_BATCH = 50_000  # images
MAX_EPOCHS = 1_000_000
MAX_IMAGE_SIZE = 1024  # pixels, height and width
DTYPES = ("float32", "bfloat16", "float64")
MATMUL_PRECISIONS = ("default", "high", "highest")
DATA_SOURCES = ("auto", "tfds", "archive", "download", "npm")
FITS = ("crop", "pad", "stretch")
IMBALANCES = ("none", "exp", "step")
SELECTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
SCHEDULES = ("constant", "cosine", "step")
FORMAT = 2  # of config.json; what an earlier one holds is read by `_upgraded`


class ConfigError(errors.UserError, ValueError):
    """A config that cannot be run; one sentence with field, value and what is allowed."""


def _check(ok: bool, field: str, value, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"config.{field}={value!r}: {allowed}")


def _flag(field: str, value) -> None:
    _check(isinstance(value, bool), field, value, "must be True or False")


def _whole(low: int, high: int | None = None) -> Callable:
    allowed = f"must be a whole number, {low} or more"
    if high is not None:
        allowed = f"must be a whole number from {low} to {high}"

    def check(field: str, value) -> None:
        ok = isinstance(value, int) and not isinstance(value, bool)
        _check(ok and low <= value and (high is None or value <= high), field, value, allowed)

    return check


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for nan


def _rate(field: str, value) -> None:
    _check(_is_number(value) and value > 0, field, value, "must be a number above 0")


def _number(low: float, high: float) -> Callable:
    def check(field: str, value) -> None:
        ok = _is_number(value) and low <= value <= high
        _check(ok, field, value, f"must be a number from {low:g} to {high:g}")

    return check


def _are_numbers(value, count: int) -> bool:
    return isinstance(value, tuple) and len(value) == count and all(map(_is_number, value))


def _betas(field: str, value) -> None:
    ok = _are_numbers(value, 2) and all(0 <= beta < 1 for beta in value)
    _check(ok, field, value, "must be two numbers from 0 to below 1, such as (0.0, 0.999)")


def _below_one(field: str, value) -> None:
    _check(_is_number(value) and 0 <= value < 1, field, value, "must be a number from 0 to below 1")


def _inner_share(field: str, value) -> None:
    _check(_is_number(value) and 0 < value < 1, field, value, "must be a number between 0 and 1")


def _milestones(field: str, value) -> None:
    ok = isinstance(value, tuple) and all(type(item) is int and item > 0 for item in value)
    ok = ok and list(value) == sorted(set(value))
    _check(ok, field, value, "must be rising epochs, whole numbers above 0, such as (160, 180)")


def _step_factors(field: str, value) -> None:
    ok = isinstance(value, tuple) and all(_is_number(item) and item > 0 for item in value)
    _check(ok, field, value, "must be numbers above 0, such as (0.01, 0.0001)")


def _scales(field: str, value) -> None:
    ok = _are_numbers(value, 2) and 0.1 <= value[0] <= value[1] <= 10
    _check(ok, field, value, "must be low and high, from 0.1 to 10, such as (0.75, 1.25)")


def _one_of(choices: Iterable[str | int]) -> Callable:
    def check(field: str, value) -> None:
        ok = any(type(value) is type(choice) and value == choice for choice in choices)
        _check(ok, field, value, f"must be one of {', '.join(map(str, choices))}")

    return check


def _text(field: str, value) -> None:
    _check(isinstance(value, str), field, value, "must be a text")


def _path(field: str, value) -> None:
    ok = isinstance(value, str) and value != ""
    _check(ok, field, value, "must be cifar10, cifar100, tfds:NAME or a path")


def _reading(channels: int, blocks: tuple) -> tuple:
    """The blocks, the first of which takes `channels` where it says 0."""
    (channels_in, *rest), *later = blocks
    return ((channels_in or channels, *rest), *later)


def _giving(channels: int, blocks: tuple) -> tuple:
    """The blocks, the last of which gives `channels` where it says 0."""
    *earlier, (channels_in, channels_out) = blocks
    return (*earlier, (channels_in, channels_out or channels))


def _blocks(*kinds: type, filled: Callable = _reading) -> Callable:
    """A non-empty tuple of blocks: channel counts, and for the CNN whether the block pools.

    A count may be 0 where `filled` puts the image's channels in its place.
    """
    example = "((3, 32, True), (32, 64, True))" if bool in kinds else "((3, 6), (6, 12))"
    place = "last" if filled is _giving else "first"

    def is_block(block) -> bool:
        return (
            isinstance(block, tuple)
            and len(block) == len(kinds)
            and all(type(item) is kind for item, kind in zip(block, kinds, strict=True))
        )

    def check(field: str, value) -> None:
        ok = isinstance(value, tuple) and value != () and all(map(is_block, value))
        counts = [n for block in filled(1, value) for n in block if type(n) is int] if ok else []
        _check(
            ok and all(1 <= count <= MAX_CHANNELS for count in counts),
            field,
            value,
            f"must be a tuple of blocks such as {example}, 1 to {MAX_CHANNELS} channels, "
            f"{place} perhaps 0 for the image's",
        )

    return check


def _class_counts(field: str, value) -> None:
    _check(isinstance(value, dict), field, value, "must map class names to counts")
    for name, count in value.items():
        if field.endswith("regulation"):
            _whole(1)(f"{field}.{name}", count)
        elif count != "largest":
            _whole(0, MAX_EXTRA)(f"{field}.{name}", count)


class Free(NamedTuple):
    """A field that may differ when a run goes on: it changes nothing of what was trained so far."""

    check: Callable


_OPT = {
    "name": _one_of(("adam", "adamw", "sgd")),
    "lr": _rate,
    "betas": _betas,
    "momentum": _below_one,
    "nesterov": _flag,
    "weight_decay": _number(0, 1e3),
    "clip_norm": _number(0, 1e9),
}
_LOSS = {
    "name": _one_of(("cross_entropy", "focal", "ldam")),
    "class_weights": _one_of(("none", "inverse", "effective")),
    "effective_beta": _inner_share,
    "focal_gamma": _number(0, 100),
    "ldam_margin": _number(0, 1),
    "ldam_scale": _number(1, 1000),
    "label_smoothing": _below_one,
    "deferred_until": _whole(0, MAX_EPOCHS),
    "logit_adjustment": _number(0, 10),
}
# What each field must be by itself, and whether it is free; how they agree is checked below.
SCHEMA = {
    "use_cnn": _flag,
    "use_cae": _flag,
    "only_train_cae_until": _whole(0),
    "train_data_regulation": _class_counts,
    "train_data_expansion": _class_counts,
    "imbalance": {"type": _one_of(IMBALANCES), "factor": _number(1, 1e6)},
    "expand_for_test": _flag,
    "is_local": _flag,
    "use_aug": _flag,
    "aug": {
        "max_angle": _number(0, 180),
        "scale_range": _scales,
        "flip_probability": _number(0, 1),
        "max_shift": _whole(0, MAX_IMAGE_SIZE // 2),
        "hole_probability": _number(0, 1),
    },
    "cnn": {
        "use_mixed_input": _flag,
        "input_resolution": _whole(0),
        "block_sizes": _blocks(int, int, bool),
        "opt": _OPT,
        "head": _one_of(("linear", "cosine")),
        "loss": _LOSS,
    },
    "cae": {
        "enc_block_sizes": _blocks(int, int),
        "dec_block_sizes": _blocks(int, int, filled=_giving),
        "opt": _OPT,
        "loss_weight": _number(0, 1e6),
    },
    "do_cv": _flag,
    "do_test": _flag,
    "num_folds": _whole(2),
    "run_folds": _whole(0),
    "num_epoch": _whole(1),
    "image_budget": _whole(0),
    "test_early_stopping": _flag,
    "lr_schedule": _one_of(SCHEDULES),
    "lr_ramp_epochs": _whole(0, MAX_EPOCHS),
    "lr_milestones": _milestones,
    "lr_factors": _step_factors,
    "balanced_batches_from": _whole(0, MAX_EPOCHS),
    "mixup_alpha": _number(0, 100),
    "ema_decay": _below_one,
    "selection_metric": _one_of(SELECTION_METRICS),
    "batch_size": _whole(1, MAX_BATCH),
    "save_img_per_epoch": Free(_whole(0)),
    "seed": _whole(0, 2**32 - 1),
    "dtype": _one_of(DTYPES),
    "matmul_precision": _one_of(MATMUL_PRECISIONS),
    "dataset": Free(_path),  # a digest decides whether these are the same images
    "image_size": _whole(1, MAX_IMAGE_SIZE),
    "fit": _one_of(FITS),
    "channels": _one_of((0, 1, 3)),
    "test_share": _number(0.001, 0.9),
    "data_source": Free(_one_of(DATA_SOURCES)),
    "data_dir": Free(_text),
    "steps_per_call": Free(_whole(0)),
    "devices_per_run": Free(_whole(0)),
    "keep_checkpoints": Free(_whole(1)),
}


def validate(config: ml_collections.ConfigDict) -> None:
    """Returns None, or raises ConfigError naming the first field that cannot be run."""
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"a config must be a ConfigDict, not {type(config).__name__}")
    _check_fields(SCHEMA, config.to_dict(), "")
    _check_parts(config)
    _check_optimization(config)
    if config.use_cnn:
        _check_loss(config)
    resolved_blocks(config, image_channels(config))


def known(field: str, name: str, names: Iterable[str], complaint: str) -> None:
    """Raises ConfigError, with the nearest of `names` or all of them, unless `name` is one."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
        raise ConfigError(f"config.{field} {complaint}: {hint}")


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError where a field by itself cannot be, whatever the networks can take."""
    _check_fields(SCHEMA, config.to_dict(), "")


def _check_fields(schema: dict, fields, prefix: str) -> None:
    _check(isinstance(fields, dict), prefix.rstrip("."), fields, "must be a group of fields")
    for name in fields:
        known(f"{prefix}{name}", name, tuple(schema), "is no field of the config")
    for name, check in schema.items():
        if name not in fields:
            raise ConfigError(f"config.{prefix}{name} is missing (configs/default.py has it)")
        if isinstance(check, dict):
            _check_fields(check, fields[name], f"{prefix}{name}.")
        else:
            check = check.check if isinstance(check, Free) else check
            check(f"{prefix}{name}", fields[name])


def _check_parts(config) -> None:
    if not (config.use_cnn or config.use_cae):
        raise ConfigError(
            "config.use_cnn=False and config.use_cae=False leave nothing to train: set one to True"
        )
    if not (config.do_cv or config.do_test):
        raise ConfigError(
            "config.do_cv=False and config.do_test=False leave nothing to run: set one to True"
        )
    _whole(0, config.image_size // 2)("aug.max_shift", config.aug.max_shift)
    _check(config.num_epoch <= MAX_EPOCHS, "num_epoch", config.num_epoch, f"at most {MAX_EPOCHS}")
    if config.only_train_cae_until and not config.use_cae:
        raise ConfigError(
            f"config.only_train_cae_until={config.only_train_cae_until}: warm-up trains the CAE "
            "alone, so it must be 0 unless config.use_cae=True"
        )
    if config.use_cae and not config.cae.loss_weight:
        _check(
            config.use_cnn and not config.only_train_cae_until,
            "cae.loss_weight",
            config.cae.loss_weight,
            "leaves the CAE alone, or warm-up, without a loss: must be above 0",
        )


def _check_optimization(config) -> None:
    """How the fields of optimizers and schedule agree."""
    for part in ("cae", "cnn"):
        opt = config[part].opt
        field = f"{part}.opt.nesterov"
        ok = not opt.nesterov or (opt.name == "sgd" and opt.momentum)
        _check(ok, field, opt.nesterov, f"needs config.{part}.opt.name='sgd' and momentum above 0")
        field = f"{part}.opt.momentum"
        ok = not opt.momentum or opt.name == "sgd"
        _check(ok, field, opt.momentum, f"is sgd's: {opt.name} has betas, set momentum to 0")
    milestones = config.lr_milestones
    stepwise = config.lr_schedule == "step"
    _check(
        bool(milestones) == stepwise and (not milestones or milestones[0] > config.lr_ramp_epochs),
        "lr_milestones",
        milestones,
        "must be epochs after lr_ramp_epochs with lr_schedule='step', and () without",
    )
    _check(
        len(config.lr_factors) == len(milestones),
        "lr_factors",
        config.lr_factors,
        f"must be as many as config.lr_milestones, {len(milestones)}",
    )


def _check_loss(config) -> None:
    """How the CNN's loss and what else corrects for rare classes agree."""
    loss = config.cnn.loss
    _check(
        loss.name != "ldam" or config.cnn.head == "cosine",
        "cnn.head",
        config.cnn.head,
        'config.cnn.loss.name="ldam" takes its margins from cosines: must be "cosine"',
    )
    _check(
        not loss.label_smoothing or loss.name == "cross_entropy",
        "cnn.loss.label_smoothing",
        loss.label_smoothing,
        f"goes with config.cnn.loss.name='cross_entropy' only, not {loss.name!r}: set it to 0",
    )
    _check(
        not loss.deferred_until or loss.class_weights != "none",
        "cnn.loss.deferred_until",
        loss.deferred_until,
        "defers class weights, but config.cnn.loss.class_weights is 'none'",
    )
    twice = loss.class_weights != "none" or loss.logit_adjustment
    _check(
        not (config.balanced_batches_from and twice),
        "balanced_batches_from",
        config.balanced_batches_from,
        "draws every class as often, so that class_weights and logit_adjustment would correct a "
        "second time: leave one out",
    )


class Blocks(NamedTuple):
    """The networks' sizes with every 0 of the config filled in."""

    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    cnn: tuple[tuple[int, int, bool], ...]
    input_resolution: int  # pixels, height and width, of what the CNN reads


def image_channels(config) -> int:
    """The images' channels, 1 or 3, as far as the config tells; 0: the data decide.

    Where config.channels leaves it open, blocks that name a count decide.
    """
    if config.channels or config.dataset == "cifar10":
        return config.channels or 3
    counts = []
    if config.use_cae:
        counts += [config.cae.enc_block_sizes[0][0], config.cae.dec_block_sizes[-1][1]]
    if config.use_cnn and not reads_code(config):
        counts.append(config.cnn.block_sizes[0][0])
    named = [count for count in counts if count]
    return 0 if not named else 1 if named[0] == 1 else 3


def reads_code(config) -> bool:
    """Whether the CNN reads the code alone, not the image."""
    return config.use_cae and not config.cnn.use_mixed_input


def code_resolution(config) -> int:
    """Pixels, height and width, of the encoder's code."""
    return config.image_size // 2 ** len(config.cae.enc_block_sizes)


def resolved_blocks(config, channels: int) -> Blocks:
    """The sizes of networks for images of so many channels, 0 where the data are to decide.

    Raises ConfigError where the blocks of what is trained do not connect.
    """
    encoder = _reading(channels, config.cae.enc_block_sizes)
    decoder = _giving(channels, config.cae.dec_block_sizes)
    of_code = reads_code(config)
    cnn = _reading(encoder[-1][1] if of_code else channels, config.cnn.block_sizes)
    resolution = code_resolution(config) if of_code else config.image_size
    blocks = Blocks(encoder, decoder, cnn, config.cnn.input_resolution or resolution)
    if config.use_cae:
        _check_autoencoder(config, blocks, channels)
    if config.use_cnn:
        _check_cnn(config, blocks, channels)
    return blocks


def _check_chain(field: str, blocks, incoming: int, source: str, start: int = 1) -> None:
    """From block `start` on, each block must take the channels that come in."""
    for index, block in enumerate(blocks[start - 1 :], start):
        if block[0] != incoming:
            hint = "; 0 stands for the image's" if source == "the image" else ""
            raise ConfigError(
                f"config.{field}={blocks!r}: block {index} takes {block[0]} channels, "
                f"but {source} has {incoming}{hint}"
            )
        incoming, source = block[1], f"block {index}'s output"


def _sizes_that_halve(config) -> str:
    """The image sizes nearest to the config's that its blocks can halve, as a remedy."""
    halvings = sum(pool for *_, pool in config.cnn.block_sizes) if config.use_cnn else 0
    if config.use_cae:
        encoder = len(config.cae.enc_block_sizes)
        halvings = encoder + halvings if reads_code(config) else max(encoder, halvings)
    step = 2**halvings
    below = config.image_size // step * step
    sizes = [size for size in (below, below + step) if 0 < size <= MAX_IMAGE_SIZE]
    if not sizes:
        return "use fewer blocks"
    return f"config.image_size={' or '.join(map(str, sizes))} would do"


def _check_autoencoder(config, blocks: Blocks, channels: int) -> None:
    encoder, decoder, size = blocks.encoder, blocks.decoder, config.image_size
    _check_chain("cae.enc_block_sizes", encoder, channels, "the image")
    if size % 2 ** len(encoder):
        most = (size & -size).bit_length() - 1  # how often 2 divides it
        count = "1 block halves" if len(encoder) == 1 else f"{len(encoder)} blocks halve"
        raise ConfigError(
            f"config.cae.enc_block_sizes={encoder!r}: {count} the {size} pixels too often, "
            f"at most {most} are possible; {_sizes_that_halve(config)}"
        )
    _check_chain("cae.dec_block_sizes", decoder, encoder[-1][1], "the code")
    _check(
        len(decoder) == len(encoder) and decoder[-1][1] == channels,
        "cae.dec_block_sizes",
        decoder,
        f"must have as many blocks as the encoder ({len(encoder)}) and end in {channels} "
        "channels (0 stands for the image's), to give an image of the input's size",
    )


def _check_cnn(config, blocks: Blocks, channels: int) -> None:
    cnn, of_code = blocks.cnn, reads_code(config)
    mixed = config.cnn.use_mixed_input
    if mixed and not config.use_cae:
        raise ConfigError("config.cnn.use_mixed_input=True: needs config.use_cae=True for the code")
    resolution = code_resolution(config) if of_code else config.image_size
    source = "the code" if of_code else "the image"
    _check(
        blocks.input_resolution == resolution,
        "cnn.input_resolution",
        blocks.input_resolution,
        f"must be {resolution}, the resolution of {source} that the CNN reads, or 0 for it",
    )
    for index, (*_, pool) in enumerate(cnn, 1):
        if pool and resolution % 2:
            raise ConfigError(
                f"config.cnn.block_sizes={cnn!r}: block {index} cannot pool "
                f"{resolution}x{resolution} pixels, an even number is needed; "
                f"{_sizes_that_halve(config)}"
            )
        resolution //= 2 if pool else 1
    code_channels = blocks.encoder[-1][1]
    if not mixed:
        _check_chain("cnn.block_sizes", cnn, code_channels if of_code else channels, source)
        return
    _check_chain("cnn.block_sizes", cnn[:1], channels, source)
    first = config.image_size // (2 if cnn[0][2] else 1)
    if first != code_resolution(config):
        raise ConfigError(
            f"config.cnn.block_sizes={cnn!r}: in mixed mode block 1 must end at the code's "
            f"resolution {code_resolution(config)}, not {first}"
        )
    joined = f"block 1's output ({cnn[0][1]}) with the code ({code_channels})"
    _check_chain("cnn.block_sizes", cnn, cnn[0][1] + code_channels, joined, start=2)


def warnings(config: ml_collections.ConfigDict) -> list[str]:
    """A sentence for each setting of a valid config that will have no effect in its epochs."""
    both = config.use_cae and config.use_cnn
    warmup, joint = config.only_train_cae_until, config.num_epoch
    sentences = []
    if both:
        joint = max(0, config.num_epoch - warmup)
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
    if config.lr_ramp_epochs >= config.num_epoch:
        sentences.append(
            f"config.lr_ramp_epochs={config.lr_ramp_epochs}: the learning rate rises during all "
            f"{config.num_epoch} epochs"
        )
    return sentences


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"cnn": {"opt": {"lr": 1}}} as {"cnn.opt.lr": 1}; an empty group stays as it is."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def differences(saved: ml_collections.ConfigDict, given: ml_collections.ConfigDict) -> list[str]:
    """What keeps a run of the config `saved` from going on under `given`, a sentence a field.

    More epochs are no obstacle at a constant learning rate; a falling one would have fallen more
    slowly.
    """
    schema, old, new = (flatten(fields) for fields in (SCHEMA, saved.to_dict(), given.to_dict()))
    free = {name for name, check in schema.items() if isinstance(check, Free)}
    if saved.lr_schedule == "constant" and given.num_epoch > saved.num_epoch:
        free.add("num_epoch")
    return [
        f"config.{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if name not in free and old.get(name) != new.get(name)
    ]


def to_json(config: ml_collections.ConfigDict) -> str:
    """The config as readable JSON text with its format's number; `from_json` reads it back."""
    return json.dumps({"format": FORMAT} | config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """The validated config that `to_json` wrote, now or in an earlier version of the program.

    Raises ConfigError if it is anything else.
    """
    try:
        fields = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"the saved config is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError("the saved config holds no fields")
    fields = _upgraded(as_tuples(fields))
    _check_fields(SCHEMA, fields, "")  # before a ConfigDict refuses names in its own words
    config = ml_collections.ConfigDict(fields)
    validate(config)
    return config


# What format 1 did where it had no field for it, and what it had and nothing has now.
_OPT_OF_FORMAT_1 = {
    "name": "adam",
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}
_LOSS_OF_FORMAT_1 = {
    "name": "cross_entropy",
    "class_weights": "none",
    "effective_beta": 0.9999,
    "focal_gamma": 1.0,
    "ldam_margin": 0.5,
    "ldam_scale": 30.0,
    "label_smoothing": 0.0,
    "deferred_until": 0,
    "logit_adjustment": 0.0,
}
_MEANT_BY_FORMAT_1: dict[str, Any] = {
    "dataset": "cifar10",
    "image_size": 32,
    "fit": "stretch",
    "channels": 3,
    "test_share": 0.2,
    "imbalance": {"type": "none", "factor": 100.0},
    "aug": {"flip_probability": 0.5},
    "run_folds": 0,
    "image_budget": 0,
    "matmul_precision": "default",
    "devices_per_run": 0,
    "cnn": {"opt": _OPT_OF_FORMAT_1, "head": "linear", "loss": _LOSS_OF_FORMAT_1},
    "cae": {"opt": _OPT_OF_FORMAT_1},
    "lr_milestones": (),
    "lr_factors": (),
    "balanced_batches_from": 0,
    "mixup_alpha": 0.0,
    "ema_decay": 0.0,
    "selection_metric": "accuracy",
}
_GONE_SINCE_FORMAT_1 = ("folds_side_by_side",)


def _upgraded(fields: dict) -> dict:
    """The fields of a saved config in today's format, which the result no longer names."""
    number = fields.get("format", 1)
    if number not in range(1, FORMAT + 1):
        raise ConfigError(
            f"the saved config is of format {number!r}, which this version cannot read: use the "
            "version of the program that wrote it, or a later one"
        )
    gone = ("format", *(_GONE_SINCE_FORMAT_1 if number == 1 else ()))
    fields = {name: value for name, value in fields.items() if name not in gone}
    return merged(_MEANT_BY_FORMAT_1, _moved(fields)) if number == 1 else fields


def _moved(fields: dict) -> dict:
    """Format 1's fields, those that have another place now in it."""
    cnn = fields.get("cnn")
    if not isinstance(cnn, dict) or "logit_adjustment" not in cnn:
        return fields
    cnn = {**cnn, "loss": {"logit_adjustment": cnn["logit_adjustment"]}}
    del cnn["logit_adjustment"]
    return {**fields, "cnn": cnn}


def merged(old: dict, new: dict) -> dict:
    """`old` with the fields of `new`, which replace it but where both are groups of fields."""
    both = {
        name: merged(old[name], value)
        for name, value in new.items()
        if isinstance(value, dict) and isinstance(old.get(name), dict)
    }
    return old | new | both


def as_tuples(value):
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
