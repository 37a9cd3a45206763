"""Results as lines of text, for the terminal."""

from collections.abc import Mapping, Sequence

from caecnn_jax import legible
from caecnn_jax.results import metrics, schema


def text_table(result: schema.Result) -> str:
    """A result as lines of text: a row a figure, also of groups of classes, then a row a class."""
    lines = aligned([[name, _cell(value)] for name, value in _figures(result).items()])
    if result["per_class"]:
        rows = [["class", "precision", "recall", "F1", "images"]]
        for name, row in result["per_class"].items():
            figures = [_cell(row[measure]) for measure in ("precision", "recall", "f1")]
            rows.append([legible.short(name), *figures, f"{row['support']:,}"])
        lines += ["", *aligned(rows)]
    return "\n".join(lines)


def summary_table(summary: Mapping) -> str:
    """What metrics.json holds as lines of text: a row a figure or class, a column a run.

    Several folds are followed by their mean ± standard deviation, and that by the test run; F1
    stands for a class.
    """
    cv, test = summary["cv"], summary["test"]
    folds = cv["folds"] if cv else []
    several = len(folds) > 1
    headings = ["", *(f"fold {fold['fold']}" for fold in folds)]
    headings += ["mean ± std"] * several + ["test"] * bool(test)
    rows = [headings, ["epochs", *(str(fold["epochs"]) for fold in folds)]]
    rows[-1] += [""] * several + ([str(test["epochs"])] if test else [])
    columns = [_rows_of(fold) for fold in folds]
    mean, std = (_rows_of(cv["mean"]), _rows_of(cv["std"])) if cv else ({}, {})
    tested = _rows_of(test) if test else {}
    shown = dict.fromkeys(name for column in (*columns, tested) for name in column)
    for name in sorted(shown, key=lambda name: name.startswith("F1 ")):  # else as they come
        cells = [_cell(column.get(name)) for column in columns]
        if several:
            spread = f" ± {_cell(std[name])}" if name in std else ""
            cells.append(f"{_cell(mean.get(name))}{spread}")
        rows.append([legible.short(name), *cells, *([_cell(tested.get(name))] if test else [])])
    return "\n".join(aligned(rows))


def summary_sentence(summary: Mapping) -> str:
    """What was learnt, in one line: accuracy, or the error of a CAE alone, and the worst class."""
    cv, test, parts = summary["cv"], summary["test"], []
    by_accuracy = (test or cv["mean"])["accuracy"] is not None
    name, words = ("accuracy", "accuracy") if by_accuracy else ("loss_cae", "reconstruction error")
    if cv:
        mean, std = cv["mean"][name], cv["std"][name]
        several = f" ± {std:.4f} over {len(cv['folds'])} folds"
        parts.append(f"{mean:.4f}{several if len(cv['folds']) > 1 else ' in one fold'}")
    if test:
        parts.append(f"{test[name]:.4f} on the test set")
    sentence = f"{words} {', '.join(parts)}"
    if by_accuracy:
        table = (test or cv["mean"])["per_class"]
        # A test part may lack a class; the folds' mean has no counts, and lacks none.
        f1 = {one: row["f1"] for one, row in table.items() if row.get("support", 1)}
        worst = min(f1, key=f1.__getitem__)
        sentence += f"; worst class {legible.short(worst)}, F1 {f1[worst]:.4f}"
    return sentence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip()
        for cells in rows
    ]


def _figures(result: Mapping) -> dict[str, float]:
    """What a result has of figures, by name, and by group and name."""
    figures = {name: result[name] for name in metrics.FIGURES}
    for group in metrics.GROUPS:
        figures |= {f"accuracy {name}": value for name, value in (result[group] or {}).items()}
    return {name: value for name, value in figures.items() if value is not None}


def _rows_of(result: Mapping) -> dict[str, float]:
    classes = result["per_class"] or {}
    return _figures(result) | {f"F1 {name}": row["f1"] for name, row in classes.items()}


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
