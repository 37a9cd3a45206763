from xml.etree import ElementTree

import numpy as np
import pytest
from builders import open_png

from caecnn_jax.records import figures
from caecnn_jax.results import calibration

NAMES = ["bird", "cat", "ship"]


def record(epoch, phase="joint", **valid):
    losses = {"loss_cae": 1 / epoch, "loss_cnn": None if phase == "warmup" else 2 / epoch}
    valid = losses | {"accuracy": None if phase == "warmup" else 0.1 * epoch} | valid
    return {"run": "fold_1", "epoch": epoch, "phase": phase, "train": losses, "valid": valid}


def test_confusion_matrix_gives_per_cent_of_the_true_class():
    figure = figures.draw_confusion_matrix([[90, 10, 0], [0, 1, 999], [0, 0, 0]], NAMES)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:4] == ["90", "10", "<1", "100"]
    assert texts[4:7] == ["100", "1,000", "0"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == NAMES
    assert open_png(figures.confusion_matrix(np.eye(3), NAMES)).std() > 0


def test_learning_curves_draw_a_panel_for_each_quantity_there_is():
    both = [record(1, "warmup"), record(2), record(3)]
    assert titles(both) == ["Accuracy", "Classification loss", "Reconstruction loss"]
    assert titles([record(1, "warmup"), record(2, "warmup")]) == ["Reconstruction loss"]
    cnn = [record(1, loss_cae=None) | {"train": {"loss_cae": None, "loss_cnn": 1.0}}]
    assert titles(cnn) == ["Accuracy", "Classification loss"]
    open_png(figures.learning_curves(both))
    open_png(figures.learning_curves([]))


def titles(records, **options):
    figure = figures.draw_learning_curves(records, **options)
    return [axes.get_title("left") for axes in figure.axes]


def test_warmup_is_shaded_to_its_last_epoch():
    figure = figures.draw_learning_curves([record(1, "warmup"), record(2, "warmup"), record(3)])
    assert figure.axes[0].patches[0].get_x() + figure.axes[0].patches[0].get_width() == 2.5
    assert not figures.draw_learning_curves([record(1)]).axes[0].patches


def test_charts_with_the_same_limits_share_their_scales():
    short, long = [record(1), record(2)], [record(epoch) for epoch in range(1, 9)]
    charts = [figures.draw_learning_curves(r, limits_from=long) for r in (short, long)]
    for one, other in zip(charts[0].axes, charts[1].axes, strict=True):
        assert one.get_ylim() == other.get_ylim() and one.get_xlim() == other.get_xlim()


def test_values_that_are_not_finite_are_left_out():
    figure = figures.draw_learning_curves([record(1), record(2, accuracy=float("nan")), record(3)])
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 3]


def test_a_reliability_diagram_has_accuracy_the_gap_and_the_error():
    diagram = calibration.reliability([4, 0, 6], [2.0, 0.0, 5.4], [1, 0, 6])
    bars, shares = figures.draw_reliability(diagram).axes
    assert bars.get_title(loc="left") == "Calibration error 0.1600"
    drawn = [[bar.get_height() for bar in group] for group in bars.containers]
    assert drawn == [[0.25, 1.0], pytest.approx([0.25, -0.1])]
    assert [bar.get_height() for bar in shares.patches] == pytest.approx([0.4, 0, 0.6])
    nothing = calibration.reliability([0, 0], [0.0, 0.0], [0, 0])
    assert figures.reliability(nothing).startswith(b"\x89PNG")


def test_confusion_matrices_add_f1_by_class():
    records = [
        record(1, "warmup"),
        record(2) | {"confusion_matrix": None, "f1": [0.5, 0.25, 0.0]},  # an earlier epoch
        record(3) | {"confusion_matrix": [[3, 1, 0], [1, 3, 0], [0, 0, 4]]},
    ]
    assert titles(records, class_names=NAMES)[-1] == "F1 by class"
    lines = figures.draw_learning_curves(records, class_names=NAMES).axes[-1].lines
    drawn = [line.get_ydata().tolist() for line in lines[:3]]
    assert drawn == [[0.5, 0.75], [0.25, 0.75], [0.0, 1.0]]


def test_rare_classes_have_their_own_colour_and_label():
    figure = figures.draw_per_class_bars(dict.fromkeys(NAMES, 0.5), rare={"bird"})
    bars = [bar.get_facecolor() for bar in figure.axes[0].patches]
    assert bars[0] != bars[1] == bars[2]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "bird (rare)"


@pytest.mark.parametrize("name", ["a\x1bb", "a\x00b", "a\ufffeb", "caf\udce9", "_old", "é" * 99])
def test_any_name_can_be_drawn(name):
    text = figures.svg(figures.draw_per_class_bars({name: 0.5, "b": 0.1}), f"F1 of {name[:1]}")
    ElementTree.fromstring(text)


def test_svg_is_inline_themed_and_free_of_addresses():
    figure = figures.draw_per_class_bars({"a<b": 0.5, "$x$": 0.7}, points={"a<b": 0.4, "$x$": 0.6})
    text = figures.svg(figure, "F1 <by> class")
    assert text.startswith("<svg") and "var(--series-1, #0072b2)" in text
    assert 'aria-label="F1 &lt;by&gt; class"' in text and "a&lt;b" in text and "$x$" in text
    assert "matplotlib.org" not in text and "<metadata" not in text
    assert figures.svg(figure, "F1 <by> class") == text


@pytest.mark.parametrize("count", [2, 30, 31, 100, 1000])
def test_figures_fit_any_number_of_classes(count):
    names = [f"a class with a long name, number {index}" for index in range(count)]
    rng = np.random.default_rng(0)
    matrix = rng.integers(1, 9, (count, count))
    picture = open_png(figures.confusion_matrix(matrix, names))
    assert max(picture.shape) < 1500
    scores = {name: index / count for index, name in enumerate(names)}
    bars = figures.draw_per_class_bars(scores, spread=scores, points=scores, rare={names[-1]})
    assert figures.png(bars)
    records = [record(1) | {"confusion_matrix": matrix.tolist()}, record(2)]
    assert len(figures.svg(figures.draw_learning_curves(records, class_names=names), "c")) < 3e5
    chart = figures.svg(figures.draw_confusion_matrix(matrix, names), "matrix")
    assert len(chart) < 2e6


def test_a_matrix_of_many_classes_has_no_numbers_and_names_some():
    names = [f"class {index}" for index in range(100)]
    axes = figures.draw_confusion_matrix(np.eye(100), names).axes[0]
    assert not axes.texts
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"class {index}" for index in range(0, 100, 4)]
    assert axes.get_yticks().tolist() == [index + 0.5 for index in range(0, 100, 4)]
    np.testing.assert_array_equal(axes.images[0].get_array(), 100 * np.eye(100))


def test_bars_of_many_classes_are_the_rare_and_the_lowest():
    f1 = {f"class {index}": index / 100 for index in range(100)}
    axes = figures.draw_per_class_bars(f1, rare={"class 90"}).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["class 90 (rare)", *(f"class {index}" for index in range(29))]
    assert [bar.get_width() for bar in axes.patches[:3]] == [0.9, 0, 0.01]
    assert "30 of 100 classes" in axes.get_title(loc="left")


def test_long_names_keep_both_ends_in_one_line():
    assert figures.short("short") == "short"
    long = figures.short("Ailuropoda melanoleuca\n(giant panda)")
    assert long == "Ailuropoda…nt panda)" and len(long) == 20
