"""The page of a study: study.html, one self-contained file, study.json and a table, study.md."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from caecnn_jax import study as study_lib
from caecnn_jax.durations import as_time
from caecnn_jax.records import claims, drawing, figures
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.reports import charts, pages
from caecnn_jax.results import variants

LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "g_mean": "G-mean of recalls",
    "loss_cnn": "classification loss",
    "calibration_error": "calibration error",
    "loss_cae": "reconstruction loss",
    "rare_recall": "recall of rare classes",
}
IN_TABLE = ("balanced_accuracy", "macro_f1", "rare_recall", "calibration_error", "loss_cae")
TITLES = {"cv": "Validation", "test": "Test"}


def write(study: study_lib.Study, workdir: epath.PathLike) -> epath.Path:
    """Writes the three files from what is finished; returns the path of study.html.

    Of commands that train parts of a study one writes at a time, so that the last page has all.
    """
    workdir = epath.Path(workdir)
    with workdir_lib.writing(workdir):
        workdir_lib.make_folder(workdir)
    with claims.in_turn(workdir):
        return _write(study, workdir)


def _write(study: study_lib.Study, workdir: epath.Path) -> epath.Path:
    result = variants.summary(study, workdir)
    pages.write_file(workdir / "study.json", json.dumps(result, indent=2) + "\n")
    pages.write_file(workdir / "study.md", markdown(result))
    values = {
        "result": result,
        "labels": LABELS,
        "titles": TITLES,
        "shown": {part: shown(result, part) for part in result["parts"]},
        "fields": list(dict.fromkeys(f for v in result["variants"].values() for f in v["config"])),
        "unpaired": {part: unpaired(result, part) for part in result["parts"]},
        "rare_classes": {part: rare_classes(result, part) for part in result["parts"]},
        "charts": {part: draw_all(result, part) for part in result["parts"]},
    }
    return pages.write_page(workdir / "study.html", "study.html.jinja", values)


def shown(result: Mapping[str, Any], part: str) -> list[str]:
    """The figures that any variant has, the one that decides first."""
    have = [name for name in LABELS if of_figure(result, part, name)]
    return sorted(have, key=lambda name: name != result["primary"])


def of_figure(result: Mapping[str, Any], part: str, name: str) -> dict[str, dict]:
    """{variant: mean, interval and values} of a figure, of the variants that have it."""
    of_part = {variant: one.get(part, {}) for variant, one in result["variants"].items()}
    return {variant: one[name] for variant, one in of_part.items() if name in one}


def differences(result: Mapping[str, Any], part: str, name: str) -> dict[str, dict]:
    """{variant: difference from its baseline} of a figure."""
    found = {
        variant: one.get("difference", {}).get(part, {})
        for variant, one in result["variants"].items()
    }
    return {variant: one[name] for variant, one in found.items() if name in one}


# --- The table ------------------------------------------------------------------------------------


def markdown(result: Mapping[str, Any]) -> str:
    """A table a part, for a README: a row a variant."""
    lines = [f"{line}\n" for line in preamble(result)]
    for part in result["parts"]:
        first, *others = shown(result, part)
        names = [first, *(name for name in others if name in IN_TABLE)]
        headings = ["variant", "seeds", "parameters"]
        headings += [LABELS[names[0]], "difference", "p", *(LABELS[name] for name in names[1:])]
        headings += ["published"] * (part in result["published"]) + ["time a seed"]
        lines += ["", f"{TITLES[part]}:", "", _line(headings)]
        lines.append(_line(["---", *["---:"] * (len(headings) - 1)]))
        for variant, one in result["variants"].items():
            if one["finished"] and part in one:
                published = result["published"].get(part)
                lines.append(_line([variant, *_cells(variant, one, part, names, published)]))
        lines += ["", " ".join(filter(None, (unpaired(result, part), rare_classes(result, part))))]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def unpaired(result: Mapping[str, Any], part: str) -> str:
    """Names the variants that have no difference from a baseline, and why; "" where all have."""
    of_part = {name: one for name, one in result["variants"].items() if part in one}
    names = [
        name
        for name, one in of_part.items()
        if name != one["baseline"] in of_part and part not in one.get("difference", {})
    ]
    if not names:
        return ""
    return (
        "No difference, as no seed has the images of its baseline, alike in size and channels: "
        f"{', '.join(names)}."
    )


def rare_classes(result: Mapping[str, Any], part: str) -> str:
    """Names the variants whose rare classes are not their baseline's; "" where none is shown."""
    if "rare_recall" not in shown(result, part):
        return ""
    of = {name: one["rare_classes"] for name, one in result["variants"].items() if one["finished"]}
    others = [
        f"{name} ({', '.join(classes) or 'none'})"
        for name, classes in of.items()
        if {*classes} != {*of.get(result["variants"][name]["baseline"], classes)}
    ]
    if not others:
        return ""
    return (
        "Recall of rare classes is of each variant's own, which are not its baseline's in "
        f"{'; '.join(others)}: the means are of other classes, the differences of the same."
    )


def preamble(result: Mapping[str, Any]) -> list[str]:
    """What the tables are of, a sentence an item."""
    percent = round(100 * result["confidence"])
    sentences = [
        f"{result['study']}: mean over seeds and folds, with its {percent} % interval; difference "
        "from the variant's baseline under the same seeds, on the same images; p adjusted by Holm."
    ]
    if result["environments"]:
        machines = "; ".join(dict.fromkeys(map(_in_words, result["environments"])))
        sentences.append(f"{machines}; {as_time(result['seconds'])} of training.")
    if result["published"]:
        sentences.append(f"Published: {result['published']['source']}.")
    if result["unfinished"]:
        sentences.append(f"Not finished: {', '.join(result['unfinished'])}.")
    sentences += [f"{name} failed: {reason}." for name, reason in result["failed"].items()]
    return sentences


def _in_words(environment: Mapping[str, Any]) -> str:
    """A machine, and what the program was on it; the commit where it is known."""
    commit = f", commit {commit}" if (commit := environment.get("commit")) else ""
    device, cores = environment["device_kind"], environment["cpu_count"]
    return f"{device}, {cores} CPU cores, jax {environment['jax']}{commit}"


def _cells(
    variant: str,
    one: Mapping[str, Any],
    part: str,
    names: Sequence[str],
    published: Mapping[str, float] | None,
) -> list[str]:
    primary, difference = one[part].get(names[0]), one.get("difference", {}).get(part, {})
    difference = difference.get(names[0])
    cells = [str(len(one["seeds"])), f"{one['parameters']:,}", _interval(primary)]
    if variant == one["baseline"]:
        cells += ["baseline", ""]
    else:
        cells += [
            _interval(difference, signed=True),
            pages.p_value(difference and difference["p_holm"]),
        ]
    means = (one[part].get(name) for name in names[1:])
    cells += ["–" if mean is None else f"{mean['mean']:.4f}" for mean in means]  # noqa: RUF001
    if published is not None:
        cells.append(pages.number(published.get(variant)))
    return [*cells, pages.duration(one["seconds"])]


def _interval(one: Mapping[str, Any] | None, signed: bool = False) -> str:
    if one is None:
        return "–"  # noqa: RUF001
    sign = "+" if signed else ""
    mean = f"{one['mean']:{sign}.4f}"
    return (
        mean if one["low"] is None else f"{mean} [{one['low']:{sign}.4f}, {one['high']:{sign}.4f}]"
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- Charts ---------------------------------------------------------------------------------------


def draw_all(result: Mapping[str, Any], part: str) -> dict[str, str | None]:
    """SVG charts of a part, None where there is nothing to draw."""
    name = shown(result, part)[0]
    means = of_figure(result, part, name)
    recalls = {variant: of for variant, of in differences(result, part, "recall").items() if of}
    curves = {
        variant: one[part]["accuracy_curve"]
        for variant, one in result["variants"].items()
        if one.get(part, {}).get("accuracy_curve")
    }
    seconds = {variant: result["variants"][variant]["seconds"] for variant in means}
    timed = {variant: one for variant, one in means.items() if seconds[variant]}
    drawn = dots(result, part)
    if timed:
        drawn["time"] = (
            draw_time(timed, seconds, LABELS[name]),
            f"{LABELS[name]} against training time",
        )
    if recalls:
        drawn["recalls"] = draw_recalls(recalls), "Difference of recall by rare class"
    if curves:
        drawn["curves"] = charts.draw_curves(curves), "Accuracy over epochs"
    names = ("means", "gains", "recalls", "time", "curves")
    return {name: figures.svg(*drawn[name]) if name in drawn else None for name in names}


def dots(result: Mapping[str, Any], part: str) -> dict[str, tuple[drawing.Figure, str]]:
    """Of the figure that decides the "means" and, where there are, the "gains"; with their titles.

    A gain is the difference from the baseline.
    """
    name = shown(result, part)[0]
    label, baselines = LABELS[name], {one["baseline"] for one in result["variants"].values()}
    means, gains = of_figure(result, part, name), differences(result, part, name)
    drawn = {"means": (draw_dots(means, label, marked=baselines), f"{label} by variant")}
    if gains:
        title = f"difference of {label}"
        drawn["gains"] = draw_dots(gains, title, zero=True), title
    return drawn


@drawing.settings()
def draw_dots(
    rows: Mapping[str, Mapping], label: str, marked: Collection[str] = (), zero: bool = False
) -> drawing.Figure:
    """A row for each variant, in it the mean, its interval and faintly the values."""
    axes = _rows(list(rows), label)
    if zero:
        axes.axvline(0, color=drawing.COLORS["ink"], linewidth=1)
    for height, (variant, one) in enumerate(rows.items()):
        color = figures.RARE if variant in marked else figures.USUAL
        values = list(one["values"].values())
        axes.plot(values, [height] * len(values), "|", color=color, ms=6, alpha=0.5)
        if one["low"] is not None:
            axes.hlines(height, one["low"], one["high"], color=color, linewidth=1.4)
        axes.plot(one["mean"], height, "o", color=color, ms=5)
    return axes.figure


@drawing.settings()
def draw_recalls(rows: Mapping[str, Mapping[str, Mapping]]) -> drawing.Figure:
    """Differences of recall with intervals: a row for each variant, a marker for each class."""
    axes = _rows(list(rows), "difference of recall", per_row=0.34)
    axes.axvline(0, color=drawing.COLORS["ink"], linewidth=1)
    classes = list(dict.fromkeys(name for one in rows.values() for name in one))
    for index, name in enumerate(classes):
        color = drawing.SERIES[index % len(drawing.SERIES)]
        marker = charts.MARKERS[index % len(charts.MARKERS)]
        offset = 0.6 * (index - (len(classes) - 1) / 2) / len(classes)
        drawn = False
        for height, one in enumerate(rows.values()):
            if name not in one:
                continue
            of_class = one[name]
            if of_class["low"] is not None:
                axes.hlines(height + offset, of_class["low"], of_class["high"], color=color)
            legend = None if drawn else figures.short(name)
            axes.plot(of_class["mean"], height + offset, marker, color=color, ms=4, label=legend)
            drawn = True
    axes.figure.legend(loc="outside upper left", ncols=3)
    return axes.figure


@drawing.settings()
def draw_time(
    means: Mapping[str, Mapping], seconds: Mapping[str, float], label: str
) -> drawing.Figure:
    """Each variant at its training time and its mean."""
    figure = drawing.Figure(figsize=(figures.WIDTH, 3), layout="constrained")
    axes = figure.add_subplot()
    points = {name: (seconds[name] / 60, one["mean"]) for name, one in means.items()}
    for name, point in points.items():
        one = means[name]
        if one["low"] is not None:
            axes.vlines(point[0], one["low"], one["high"], color=figures.USUAL, linewidth=1)
        axes.plot(*point, "o", color=figures.USUAL, ms=5)
    points = {short: points[name] for name, short in charts.short_names(points).items()}
    for name, offset in charts.label_offsets(points).items():
        style = {"ha": "center", "va": "center", "size": 7, "textcoords": "offset points"}
        axes.annotate(name, points[name], xytext=offset, **style)
    axes.margins(0.15, 0.15)
    axes.set(xlabel="training time a seed, minutes", ylabel=label)
    return figure


def _rows(names: Sequence[str], label: str, per_row: float = 0.22):
    size = (figures.WIDTH, 0.7 + per_row * len(names))
    figure = drawing.Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), charts.short_names(names).values())
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(drawing.MaxNLocator(6))  # more labels would touch each other
    axes.set_xlabel(label)
    return axes
