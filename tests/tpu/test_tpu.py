"""What XLA's TPU compiler makes of the program: bounds on its estimates (make test-tpu)."""

import functools

import jax
import pytest

from benchmarks import tpu

pytestmark = pytest.mark.tpu

V5E, NEWER = "v5e:2x2", "v6e:2x2"


@functools.cache
def row(name, config="mixed", dtype="float32", *, topology=V5E, devices=1, aug=True):
    """The compiler's estimates, with one bfloat16 product a float32 product: the least to compile.

    Skips where there is no compiler.
    """
    try:
        mesh = tpu.make_mesh(topology, devices)
    except tpu.NoCompiler as error:
        pytest.skip(f"{error}; make test-tpu installs it")
    changed = tpu.load_config(config, dtype, "default")
    changed.use_aug = aug
    return tpu.compile_program(name, changed, mesh, config)


def test_a_joint_step_stays_within_its_cycles_and_memory():
    joint = row("joint")
    assert 0 < joint["step_cycles"] <= 400_000
    assert joint["temporaries_mib"] < 20  # 708 where all images were copied into another layout
    assert 170 < joint["arguments_mib"] < 200  # the images, 176 MiB as rows of bytes
    assert joint["all_reduces"] == 0
    assert joint["gathers_without_estimate"] == 1  # the rows of the batch's images


def test_what_only_shifts_and_flips_selects_whole_pixels():
    joint = row("joint", "best")
    assert joint["step_cycles"] < 470_000
    assert joint["temporaries_mib"] < 20 and joint["gathers_without_estimate"] == 1


def test_bfloat16_costs_no_more_than_float32_at_the_default_precision():
    assert row("joint", dtype="bfloat16")["step_cycles"] <= row("joint")["step_cycles"]


def test_augmentation_is_a_small_part_of_a_warm_up_step():
    with_it, without = row("warmup"), row("warmup", aug=False)
    assert 20_000 < with_it["step_cycles"] - without["step_cycles"] < 100_000


def test_evaluation_of_256_images_costs_less_than_a_step_of_64():
    assert 0 < row("evaluate")["step_cycles"] < 160_000
    assert row("evaluate")["temporaries_mib"] < 20


@pytest.mark.parametrize("name", ["init", "predict"])
def test_the_other_programs_compile(name):
    assert row(name)["step_cycles"] > 0
    assert row(name)["temporaries_mib"] < 100


def test_four_chips_share_a_batch():
    joint = row("joint", devices=4)
    assert joint["all_reduces"] > 0 and joint["temporaries_mib"] < 20
    assert joint["step_cycles"] < 1.1 * row("joint")["step_cycles"]


def test_a_newer_generation_compiles_the_same_program():
    joint = row("joint", topology=NEWER)
    assert joint["gathers_without_estimate"] == 1 and joint["temporaries_mib"] < 20


def test_an_unknown_topology_is_a_sentence():
    row("init")  # skips where there is no compiler
    with pytest.raises(tpu.NoCompiler, match="no topology 'v5e:3x1000'"):
        tpu.make_mesh("v5e:3x1000", 1)


def test_nothing_that_was_traced_as_on_a_tpu_is_left_behind():
    before = jax.default_backend()
    with tpu.as_on_tpu():
        assert jax.default_backend() == "tpu"
    assert jax.default_backend() == before


HLO = """HloModule jit_run

%gathering (p: f32[4]) -> f32[2] {
  ROOT %g = f32[2] gather(%p, %p), offset_dims={}
}

%body (p: f32[4]) -> f32[4] {
  %a = f32[4] add(%p, %p), backend_config={"estimated_cycles":"30"}
  %b = f32[2] fusion(%a), kind=kCustom, calls=%gathering
  ROOT %c = f32[4] fusion(%b), kind=kLoop, calls=%x, backend_config={"estimated_cycles":"12"}
}

%cond (p: f32[4]) -> pred[] {
  ROOT %d = pred[] constant(true)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %e = f32[4] copy(%p), backend_config={"estimated_cycles":"1000"}
  ROOT %w = f32[4] while(%e), condition=%cond, body=%body
}
"""


def test_a_steps_cycles_are_those_of_the_loops_body():
    assert tpu.cycles_of_a_step(HLO) == (42, 1)


def test_without_a_loop_all_cycles_count():
    straight = HLO.replace("while(%e), condition=%cond, body=%body", "negate(%e)")
    assert tpu.cycles_of_a_step(straight.replace("%body (", "%other (")) == (1000, 0)


def test_a_row_of_the_table_has_every_figure():
    one = dict.fromkeys(
        ("name", "config", "dtype", "matmul_precision", "optimal_us", "temporaries_mib"), "text"
    )
    counts = ("devices", "step_cycles", "arguments_mib", "all_reduces", "gathers_without_estimate")
    says, empty, *lines = tpu.table([one | dict.fromkeys(counts, 1234)]).splitlines()
    assert says.endswith("not measurements.") and not empty
    assert len(lines) == 3 and lines[2].count("1,234") == 5
    assert len({line.count("|") for line in lines}) == 1
