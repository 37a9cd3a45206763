"""The expected time of an epoch on devices that are not at hand, from the compiled training step.

Run:  python benchmarks/scaling.py [--config mixed] [--dtype float32]      (half a minute, any CPU)

XLA counts the operations, bytes, kernels and collectives of the joint step in its plain form, the
one of accelerators, as compiled for eight simulated devices. A step then takes as long as the
slower of arithmetic and memory, or as starting its kernels where that is longer, and on several
devices the collectives besides. A model on paper, not a measurement: no cache, no overlap, and
every kernel at peak rate. Prints Markdown and writes benchmarks/results/scaling.json.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import re
import sys
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import worker
from caecnn_jax import backend
from caecnn_jax.data import augment
from caecnn_jax.networks import models
from caecnn_jax.training import devices, steps

DEVICES = 8  # simulated ones
BATCH_SIZES = [64 * 2**power for power in range(9)]  # 64 .. 16,384 images
MICROSECOND = 1e-6


@dataclasses.dataclass(frozen=True)
class Machine:
    """Rates of one device, and how many there are."""

    name: str
    flops: float  # a second, in matrix units, as float32 is multiplied by default
    bytes: float  # a second, of memory
    kernel: float = 2 * MICROSECOND  # to start a kernel: an assumption, not a vendor's figure
    link: float = float("inf")  # bytes a second between neighbours
    hop: float = 1 * MICROSECOND  # to pass a neighbour: an assumption, not a vendor's figure
    torus: tuple[int, ...] = (1,)  # devices along each dimension of the network

    @property
    def devices(self) -> int:
        """How many devices."""
        count = 1
        for side in self.torus:
            count *= side
        return count


# NVIDIA H100 Tensor Core GPU data sheet, SXM: TF32 989 TFLOP/s with sparsity, half of it without;
# HBM3 3.35 TB/s.
H100 = Machine("one H100", flops=494.5e12, bytes=3.35e12)
# Google Cloud, "TPU v5e": 197 TFLOP/s bfloat16, in which TPUs multiply float32 by default; HBM
# 819 GB/s; interconnect 1,600 Gbit/s a chip over four links.
V5E = Machine("one TPU v5e", flops=197e12, bytes=819e9, link=1600e9 / 8 / 4)
V5E_8 = dataclasses.replace(V5E, name="TPU v5e-8", torus=(2, 4))
V5E_256 = dataclasses.replace(V5E, name="TPU v5e-256", torus=(16, 16))
MACHINES = (H100, V5E, V5E_8, V5E_256)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step asks of each device; what grows with its images is a constant and a slope."""

    flops: tuple[float, float]
    bytes: tuple[float, float]
    kernels: int
    collectives: int
    collective_bytes: int

    def seconds(self, machine: Machine, batch_size: int) -> dict[str, float]:
        """The time that each of the limits allows a step."""
        images = -(-batch_size // machine.devices)
        flops, moved = (base + slope * images for base, slope in (self.flops, self.bytes))
        # Reduced and handed back along each dimension, the ring's two directions at once.
        hops = 2 * sum(side // 2 for side in machine.torus)
        return {
            "compute": flops / machine.flops,
            "memory": moved / machine.bytes,
            "kernel starts": self.kernels * machine.kernel,
            "collective latency": self.collectives * hops * machine.hop,
            "collective bytes": 2 * self.collective_bytes / machine.link if hops else 0.0,
        }

    def step(self, machine: Machine, batch_size: int) -> tuple[float, str]:
        """A step's seconds, and the limit that binds."""
        limits = self.seconds(machine, batch_size)
        local = max(limits[name] for name in ("compute", "memory", "kernel starts"))
        total = local + limits["collective latency"] + limits["collective bytes"]
        return total, max(limits, key=limits.get)


def compile_step(config, batch_size: int, num_devices: int):
    """The joint step, augmentation included, compiled for a batch over simulated devices."""
    model = models.from_config(config)
    dtype = jnp.dtype(config.dtype)

    def step(state, images, labels, mask, key):
        draws = augment.draw(key, *images.shape[:3])
        images = augment.augment(images, draws, dtype=dtype)
        return steps.train_step(state, {"image": images, "label": labels, "mask": mask})

    (mesh, *_) = devices.lanes(num_devices).meshes

    def shaped(shape, kind, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, kind, sharding=sharding)

    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: steps.create_state(model, config, key), key)
    state = jax.tree.map(lambda leaf: shaped(leaf.shape, leaf.dtype), state)
    batch = (
        shaped((batch_size, 32, 32, 3), jnp.uint8, "data"),
        shaped((batch_size,), jnp.int32, "data"),
        shaped((batch_size,), bool, "data"),
    )
    with mock.patch.object(backend, "use_plain", lambda plain: True):
        return jax.jit(step).lower(state, *batch, shaped(key.shape, key.dtype)).compile()


def measure(config, batch_size: int = 64) -> Cost:
    """Counts in the compiled step; two batch sizes tell what grows with the images."""
    small, large = (compile_step(config, size, 1) for size in (batch_size, 2 * batch_size))

    def line(name: str) -> tuple[float, float]:
        first, second = (one.cost_analysis()[name] for one in (small, large))
        slope = (second - first) / batch_size
        return first - slope * batch_size, slope

    sizes = collectives(compile_step(config, batch_size, DEVICES).as_text())
    return Cost(
        line("flops"), line("bytes accessed"), kernels(small.as_text()), len(sizes), sum(sizes)
    )


def kernels(hlo: str) -> int:
    """Instructions of the entry computation that do work."""
    entry = hlo[hlo.index("\nENTRY ") :].split("\n}")[0]
    operations = re.findall(r"^\s+(?:ROOT )?%?\S+ = .*?[\])}] ([a-z][\w-]*)\(", entry, re.MULTILINE)
    free = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
    return sum(operation not in free for operation in operations)


def collectives(hlo: str) -> list[int]:
    """The bytes of the result of each collective of a compiled program."""
    pattern = r" = (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    results = re.findall(pattern + r"(?:-start)?\(", hlo)
    return [sum(map(_bytes, re.findall(r"([a-z]+)(\d*)\[([\d,]*)\]", one))) for one in results]


def _bytes(shape: tuple[str, str, str]) -> int:
    _, bits, sides = shape
    size = int(bits or 8) // 8  # "pred" has no number
    for side in filter(None, sides.split(",")):
        size *= int(side)
    return size


def helps_from(cost: Cost, few: Machine, many: Machine) -> int | None:
    """The smallest of the batch sizes from which `many` devices are faster than `few`."""
    slower = [b for b in BATCH_SIZES if cost.step(many, b)[0] >= cost.step(few, b)[0]]
    rest = [b for b in BATCH_SIZES if not slower or b > max(slower)]
    return rest[0] if rest else None


def main() -> None:
    """Prints and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="mixed")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    config = importlib.import_module(f"configs.{args.config}").get_config()
    config.dtype = args.dtype
    cost = measure(config)
    images = len(worker.fold_splits(config, worker.random_data())[0].expanded)
    print(
        f"Joint step, {args.config}, {args.dtype}: {cost.flops[1] / 1e6:.1f} MFLOP and "
        f"{cost.bytes[1] / 1e6:.2f} MB an image, {cost.bytes[0] / 1e6:.2f} MB besides; "
        f"{cost.kernels} kernels; {cost.collectives} collectives of "
        f"{cost.collective_bytes / 1e6:.2f} MB in all. An epoch: {images:,} images.\n"
    )
    print("| batch | " + " | ".join(machine.name for machine in MACHINES) + " |")
    print("| ---: |" + " --- |" * len(MACHINES))
    rows = []
    for size in BATCH_SIZES[::2]:
        cells = []
        for machine in MACHINES:
            seconds, limit = cost.step(machine, size)
            epoch = seconds * -(-images // size)
            cells.append(f"{epoch:.3f} s, {limit}")
            rows.append(
                {
                    "machine": machine.name,
                    "batch_size": size,
                    "epoch_seconds": epoch,
                    "limit": limit,
                }
            )
        print(f"| {size:,} | {' | '.join(cells)} |")
    from_batch = {
        f"{many.name} against {few.name}": helps_from(cost, few, many)
        for few, many in ((V5E, V5E_8), (V5E_8, V5E_256))
    }
    print()
    for pair, size in from_batch.items():
        print(f"{pair}: faster from a batch of {size:,}; below, more devices do not help.")
    results = worker.PROJECT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    summary = {
        "config": args.config,
        "dtype": args.dtype,
        "jax": jax.__version__,
        "step": dataclasses.asdict(cost),
        "machines": [dataclasses.asdict(machine) for machine in MACHINES],
        "epoch_images": images,
        "epochs": rows,
        "more_devices_help_from_batch": from_batch,
    }
    text = json.dumps(summary, indent=2).replace("Infinity", "null")
    (results / "scaling.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
