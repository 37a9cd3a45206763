"""What XLA's TPU compiler makes of a run's programs, on a machine without a TPU.

Run:  pip install -e '.[tpu]'
      python benchmarks/tpu.py [--topology v5e:2x2] [--devices 1 4] [--config mixed best]
          [--dtype float32 bfloat16] [--precision default highest] [--programs joint evaluate]

Compiles init, the warm-up and the joint training call, the evaluation call and predict for every
choice of the options. Written are benchmarks/results/tpu-TOPOLOGY.json and, for docs/, the table
tpu-TOPOLOGY.md beside it. All figures are the compiler's estimates, none is a measurement:
step_cycles are those of one step (of the whole program where nothing is repeated), without the few
instructions that carry no estimate, such as the gradient of a max-pool; optimal_us counts the body
of a loop once. A TPU v5e makes 1.5 billion cycles a second.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from caecnn_jax import backend
from caecnn_jax.data import augment
from caecnn_jax.networks import models
from caecnn_jax.results import predict
from caecnn_jax.training import epochs, steps

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
NUM_IMAGES, IMAGE_SHAPE, NUM_CLASSES = 60_000, (32, 32, 3), 10  # of CIFAR-10
PRECISIONS = ("default", "high", "highest")
FIGURES = "estimates of XLA's TPU compiler, not measurements"
# libtpu asks a TPU's own machine who and where it is; here it is told, and nothing is locked.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class NoCompiler(Exception):
    """There is no libtpu, or it does not know the topology."""


@contextlib.contextmanager
def as_on_tpu() -> Iterator[None]:
    """Within, the program takes the forms that it takes on a TPU; nothing traced so outlives it."""
    real = jax.default_backend
    cached = backend.compiler_options, epochs._compiled, steps._compiled_init

    def forget():
        jax.clear_caches()
        for function in cached:
            function.cache_clear()

    forget()
    jax.default_backend = lambda: "tpu"
    try:
        yield
    finally:
        jax.default_backend = real
        forget()


def make_mesh(topology: str, num_devices: int) -> Mesh:
    """A run's mesh on the first devices of a topology such as v5e:2x2; raises NoCompiler."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        importlib.metadata.version("libtpu")
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except importlib.metadata.PackageNotFoundError as error:
        raise NoCompiler("libtpu is missing: pip install -e '.[tpu]'") from error
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
        raise NoCompiler(f"no topology {topology!r}: {str(error).splitlines()[0]}") from error
    return Mesh(np.asarray(described.devices[:num_devices]), ("data",))


def load_config(name: str, dtype: str, precision: str) -> ml_collections.ConfigDict:
    """The config configs/NAME.py with another dtype and precision."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.dtype, config.matmul_precision = dtype, precision
    return config


def _init(config, mesh: Mesh) -> jax.stages.Lowered:
    model = models.from_config(config)
    with jax.default_device(None):
        key = _placed(jax.eval_shape(lambda: jax.random.key(0)), mesh)
        return jax.jit(lambda key: steps.create_state(model, config, key).arrays).lower(key)


def _train(config, mesh: Mesh, joint: bool) -> jax.stages.Lowered:
    num_steps = config.steps_per_call or epochs.STEPS_PER_CALL_ELSEWHERE
    pipeline = epochs.pipeline_of(config, IMAGE_SHAPE, augment.CIFAR10)
    state = _placed(_state(config), mesh)
    factors = {part: _array((num_steps,), jnp.float32) for part in state.params}
    compiled = epochs._compiled(epochs._train_chunk, ("joint", "pipeline"), donated="state")
    return compiled.lower(
        state,
        _placed(_data(), mesh),
        *_order(num_steps, config.batch_size, mesh),
        _placed(jax.eval_shape(lambda: jax.random.key(0)), mesh),
        _placed(_array((), jnp.int32), mesh),
        _placed(steps.Moment(factors, _array((), jnp.int32)), mesh),
        joint=joint,
        pipeline=pipeline,
    )


def _evaluate(config, mesh: Mesh) -> jax.stages.Lowered:
    num_steps = config.steps_per_call or epochs.STEPS_PER_CALL_ELSEWHERE
    state = _placed(_state(config), mesh)
    static = ("model", "joint", "pipeline", "loss")
    return epochs._compiled(epochs._eval_chunk, static).lower(
        state.model,
        state.variables,
        _placed(_data(), mesh),
        *_order(num_steps, epochs.EVAL_BATCH_SIZE, mesh),
        joint=config.use_cnn,
        pipeline=epochs.Pipeline(IMAGE_SHAPE, augment.CIFAR10),
        loss=state.recipe.loss,
    )


def _predict(config, mesh: Mesh) -> jax.stages.Lowered:
    state = _placed(_state(config), mesh)
    images = _placed(_array((predict.BATCH_SIZE, *IMAGE_SHAPE), jnp.uint8), mesh)
    recipe = predict.Recipe(state.model, augment.CIFAR10, state.recipe.loss, (None,))
    return predict.forward.lower(recipe, [state.variables], images)


PROGRAMS: dict[str, Callable[[ml_collections.ConfigDict, Mesh], jax.stages.Lowered]] = {
    "init": _init,
    "warmup": lambda config, mesh: _train(config, mesh, joint=False),
    "joint": lambda config, mesh: _train(config, mesh, joint=True),
    "evaluate": _evaluate,
    "predict": _predict,
}


def _array(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _placed(tree, mesh: Mesh, *axes: str | None):
    """The shapes of a tree, on the mesh, split along `axes`."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _state(config) -> steps.TrainState:
    """The shapes of a state."""
    model = models.from_config(config)
    counts = _array((NUM_CLASSES,), jnp.int32)
    return jax.eval_shape(
        lambda key, counts: steps.create_state(model, config, key, class_counts=counts),
        jax.random.key(0),
        counts,
    )


def _data() -> dict[str, jax.ShapeDtypeStruct]:
    shape = NUM_IMAGES, int(np.prod(IMAGE_SHAPE))
    return {"image": _array(shape, jnp.uint8), "label": _array(shape[:1], jnp.int32)}


def _order(num_steps: int, batch_size: int, mesh: Mesh):
    """A call's indices and mask, each batch split over the devices."""
    shape = num_steps, batch_size
    return _placed((_array(shape, jnp.int32), _array(shape, bool)), mesh, None, "data")


def compile_program(
    name: str, config: ml_collections.ConfigDict, mesh: Mesh, config_name: str = ""
) -> dict[str, Any]:
    """Compiles one of PROGRAMS; returns its row of the results, all of it the compiler's estimate.

    `config_name` is what the row calls the config.
    """
    began = time.time()
    with as_on_tpu(), jax.default_matmul_precision(config.matmul_precision):
        compiled = PROGRAMS[name](config, mesh).compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    cycles, gathers = cycles_of_a_step(text)
    return {
        "name": name,
        "config": config_name,
        "dtype": config.dtype,
        "matmul_precision": config.matmul_precision,
        "devices": mesh.size,
        "step_cycles": cycles,
        "optimal_us": round(1e6 * compiled.cost_analysis().get("optimal_seconds", 0), 1),
        "temporaries_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        "arguments_mib": round(memory.argument_size_in_bytes / 2**20, 1),
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", text)),
        "gathers_without_estimate": gathers,
        "compile_s": round(time.time() - began, 1),
    }


def cycles_of_a_step(hlo: str) -> tuple[int, int]:
    """Cycles of a program's heaviest loop body, or of all of it, and its gathers without any.

    XLA writes "estimated_cycles" beside most instructions of the HLO that it has compiled for TPU.
    """
    computations = dict(_computations(hlo))
    bodies = set(re.findall(r" while\(.*? body=%?([\w.\-]+)", hlo))
    steps_of = {name: computations[name] for name in bodies} or computations
    estimates = {name: sum(map(_cycles, lines)) for name, lines in steps_of.items()}
    heaviest = max(estimates, key=estimates.get)
    gathers = 0
    for line in steps_of[heaviest]:
        called = re.search(r" calls=%?([\w.\-]+)", line)
        within = computations.get(called[1], []) if called else []
        gathers += not _cycles(line) and any(" gather(" in one for one in [line, *within])
    return estimates[heaviest], gathers


def _computations(hlo: str) -> Iterator[tuple[str, list[str]]]:
    """The computations of a module by name, as lines."""
    name, lines = "", []
    for line in hlo.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", line)
        if head:
            name, lines = head[1], []
        elif line == "}":
            yield name, lines
        else:
            lines.append(line)


def _cycles(line: str) -> int:
    found = re.search(r'"estimated_cycles":"(\d+)"', line)
    return int(found[1]) if found else 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown, below a line that says what their figures are."""
    columns = {
        "program": "name",
        "config": "config",
        "dtype": "dtype",
        "precision": "matmul_precision",
        "chips": "devices",
        "cycles of a step": "step_cycles",
        "'optimal' us": "optimal_us",
        "temporaries, MiB": "temporaries_mib",
        "arguments, MiB": "arguments_mib",
        "all-reduces": "all_reduces",
        "gathers without estimate": "gathers_without_estimate",
    }
    lines = [f"All figures are {FIGURES}.", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        values = (row[key] for key in columns.values())
        cells = (f"{value:,}" if isinstance(value, int) else str(value) for value in values)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e:2x2", help="as libtpu names it")
    parser.add_argument("--devices", type=int, nargs="+", default=[1], help="chips of one run")
    parser.add_argument("--config", nargs="+", default=["mixed"], help="of configs/")
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--precision", nargs="+", default=["highest"], choices=PRECISIONS)
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=PROGRAMS)
    parser.add_argument("--add", action="store_true", help="keep the file's other rows")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Compiles what the options ask for, prints and writes the compiler's estimates."""
    args = parse(argv)
    path = RESULTS / f"tpu-{args.topology.replace(':', '-')}.json"
    rows = json.loads(path.read_text())["programs"] if args.add and path.exists() else []
    choices = itertools.product(
        args.config, args.dtype, args.precision, args.devices, args.programs
    )
    for config_name, dtype, precision, num_devices, program in choices:
        mesh = make_mesh(args.topology, num_devices)
        config = load_config(config_name, dtype, precision)
        row = compile_program(program, config, mesh, config_name)
        print(json.dumps(row), flush=True)
        rows = [other for other in rows if _identity(other) != _identity(row)] + [row]
        result = {
            "figures": FIGURES,
            "topology": args.topology,
            "jax": jax.__version__,
            "libtpu": importlib.metadata.version("libtpu"),
            "programs": sorted(rows, key=_identity),
        }
        path.write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text(table(result["programs"]))
    print(f"\nIn {path}:\n\n{table(result['programs'])}")
    return 0


def _identity(row: dict[str, Any]) -> tuple:
    order = list(PROGRAMS).index(row["name"])
    return row["config"], row["dtype"], row["matmul_precision"], row["devices"], order


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCompiler as error:
        sys.exit(str(error))
