"""Parts of several runs, by flags or by a SLURM array's task."""

import pytest

from caecnn_jax import part


def test_parts_hold_every_item_once_and_differ_by_one_at_most():
    items = [f"run {number}" for number in range(14)]
    parts = [part.Part(index, 4).of(items) for index in range(4)]
    assert sorted(item for one in parts for item in one) == sorted(items)
    assert {len(one) for one in parts} == {3, 4}
    assert part.WHOLE.of(items) == tuple(items)
    assert part.WHOLE.is_whole and not part.Part(0, 2).is_whole


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [(4, 4, "part 4 of 4"), (-1, 4, "part -1 of 4"), (0, 0, "part 0 of 0"), (1, None, "together")],
)
def test_a_part_that_there_is_not_is_refused(index, count, message):
    assert part.given(None, None) is None
    assert part.given(3, 4) == part.Part(3, 4)
    with pytest.raises(part.PartError, match=message):
        part.given(index, count)


@pytest.mark.parametrize(
    ("task", "count", "first", "step", "wanted"),
    [(0, 3, None, None, (0, 3)), (5, 3, 3, 2, (1, 3)), (10, 10, 1, 1, (9, 10))],
)
def test_a_task_of_an_array_is_a_part(task, count, first, step, wanted):
    values = {"ID": task, "COUNT": count, "MIN": first, "STEP": step}
    environment = {
        f"SLURM_ARRAY_TASK_{name}": str(value)
        for name, value in values.items()
        if value is not None
    }
    assert part.of_array(environment) == part.Part(*wanted)
    assert part.of_array({}) is None


@pytest.mark.parametrize(
    "environment", [{}, {"COUNT": ""}, {"COUNT": "x"}, {"COUNT": "2", "MIN": ""}, {"ID": ""}]
)
def test_an_array_without_its_numbers_is_refused(environment):
    numbers = {"ID": "1"} | environment
    with pytest.raises(part.PartError, match=r"SLURM_ARRAY_TASK_\w+='x?' is no whole number"):
        part.of_array({f"SLURM_ARRAY_TASK_{name}": one for name, one in numbers.items()})


def test_an_array_with_gaps_is_refused():
    numbers = {"ID": "7", "COUNT": "3", "MIN": "1", "STEP": "1"}  # --array=1,3,7
    with pytest.raises(part.PartError, match="is no part of 3 from 1 by 1"):
        part.of_array({f"SLURM_ARRAY_TASK_{name}": one for name, one in numbers.items()})
