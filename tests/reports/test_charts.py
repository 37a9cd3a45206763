"""Tests of caecnn_jax.reports.charts."""

import math
import re

from caecnn_jax.records import figures
from caecnn_jax.reports import charts


def test_of_many_classes_the_charts_show_the_hardest():
    f1 = {"a": {f"class {n}": n / 100 for n in range(100)}}
    f1["_b"] = f1["a"]
    gains = {name: {"mean": 0.1, "low": None, "high": None} for name in f1["a"]}
    runs = {
        name: {"cv": {"f1": of}, "difference": {"cv": {"f1": gains}}} for name, of in f1.items()
    }
    result = {"parts": ["cv"], "rare_classes": ["class 99"], "baseline": "a", "runs": runs}
    drawn = charts.draw(result, {})
    for svg in (drawn["f1"], drawn["gains"], drawn["scatter"]["_b"]):
        named = set(re.findall(r"class \d+", svg))
        assert named == {"class 99", *(f"class {n}" for n in range(29))}
    assert ">_b<" in drawn["f1"].replace("> _b<", ">_b<")  # legends leave out underscores


def looks_of(figure):
    """Colour and marker by what the legend calls them."""
    return {
        line.get_label(): (line.get_color(), line.get_marker()) for line in figure.axes[0].lines
    }


def gain(mean, low=None, high=None):
    return {"mean": mean, "low": low, "high": high}


def test_a_run_looks_the_same_in_all_charts():
    f1 = {"plain": {"cat": 0.5}, "new": {"cat": 0.6}, "other": {"cat": 0.7}}
    gains = {"new": {"cat": gain(0.1)}, "other": {"cat": gain(0.2)}}  # none of the baseline
    curves = {name: [(1, 0.5), (2, 0.6)] for name in f1}
    in_f1, in_gains, in_curves = (
        looks_of(figure)
        for figure in (
            charts.draw_f1(f1, ()),
            charts.draw_gains(gains, ()),
            charts.draw_curves(curves),
        )
    )
    assert in_f1 == in_curves
    assert {name: in_gains[name] for name in gains} == {name: in_f1[name] for name in gains}


def test_six_runs_differ_in_colour_and_in_marker_and_the_seventh_is_as_the_first():
    looks = looks_of(charts.draw_curves({f"run {k}": [(1, 0.5)] for k in range(7)}))
    colors, markers = zip(*looks.values(), strict=True)
    assert len(set(colors[:6])) == len(set(markers[:6])) == 6
    assert looks["run 6"] == looks["run 0"]


def test_runs_lie_side_by_side_in_the_row_of_their_class():
    f1 = {"plain": {"cat": 0.5, "dog": 0.25}, "new": {"cat": 0.75, "dog": 1.0}}
    axes = charts.draw_f1(f1, ["dog"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog (rare)"]
    points = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert points["plain"] == [[0.5, -0.175], [0.25, 0.825]]  # of the row's 0.7, a quarter up
    assert points["new"] == [[0.75, 0.175], [1.0, 1.175]]


def test_an_improvement_has_its_interval_where_there_is_one():
    gains = {"new": {"cat": gain(0.125, -0.25, 0.5), "dog": gain(0.25, 0.125, 0.375)}}
    (lines,) = charts.draw_gains(gains, ()).axes[0].collections
    segments = [segment.tolist() for segment in lines.get_segments()]
    assert segments == [[[-0.25, 0], [0.5, 0]], [[0.125, 1], [0.375, 1]]]
    one = {"new": {"cat": gain(0.125), "dog": gain(0.25, 0.125, 0.375)}}
    (lines,) = charts.draw_gains(one, ()).axes[0].collections
    assert [segment.tolist() for segment in lines.get_segments()] == segments[1:]
    without = {"new": {"cat": gain(0.125), "dog": gain(0.25)}}
    assert not charts.draw_gains(without, ()).axes[0].collections


def test_a_scatter_has_a_point_a_class_and_names_those_that_are_asked_for():
    f1 = {"cat": 0.5, "dog": 0.25, "emu": 0.75}
    axes = charts.draw_scatter(f1, {name: gain(0.125) for name in f1}, ["emu"], ["dog"]).axes[0]
    zero, *points = axes.lines
    assert [line.get_xydata().tolist() for line in points] == [[[f, 0.125]] for f in f1.values()]
    looks = [(line.get_color(), line.get_marker()) for line in points]
    assert looks == [(figures.USUAL, "o"), (figures.USUAL, "o"), (figures.RARE, "D")]
    assert zero.get_ydata() == [0, 0]
    assert [text.get_text() for text in axes.texts] == ["dog"]


def test_names_that_are_shortened_alike_are_numbered():
    same = charts.short_names([f"{'a' * 20}{middle}{'b' * 20}" for middle in "xyz"])
    assert [name[-3:] for name in same.values()] == ["bbb", "(2)", "(3)"]
    assert charts.short_names(["a", "a (2)", "a "]) == {"a": "a", "a (2)": "a (2)", "a ": "a (3)"}


def test_labels_keep_clear_of_points_and_of_each_other():
    points = {"cat": (0.5, 0.1), "dog": (0.5, 0.102), "ship": (0.9, -0.1), "bird": (0.1, 0.0)}
    offsets = charts.label_offsets(points)
    assert offsets["ship"] == offsets["bird"] == (0, 8)
    assert offsets["cat"] != offsets["dog"]
    assert all(math.isfinite(value) for offset in offsets.values() for value in offset)
    assert charts.label_offsets({"a": (1, 1), "b": (1, 1)})


def test_labels_go_above_then_below_then_right_then_left_then_above_again():
    offsets = charts.label_offsets(dict.fromkeys("abcde", (1, 1)))
    assert list(offsets.values()) == [(0, 8), (0, -8), (7, 0), (-7, 0), (0, 8)]  # 5 + 4 / 2


def test_two_labels_above_that_would_overlap_go_apart():
    far = {"end": (1, 1)}  # a tenth of the way to it are 21 points
    # Labels of 4 points a letter: 28 and 20 wide, whose middles 24 apart would touch.
    assert charts.label_offsets({"leopard": (0, 0), "tiger": (0.1, 0)} | far) == {
        "leopard": (0, 8), "tiger": (0, -8), "end": (0, 8),
    }  # fmt: skip
    apart = charts.label_offsets({"leopard": (0, 0), "tiger": (0.12, 0)} | far)
    assert apart["tiger"] == (0, 8)
