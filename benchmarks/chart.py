"""The bar chart of the README, docs/throughput.png, from what benchmarks/throughput.py measured.

Run:  python benchmarks/chart.py benchmarks/results/throughput-NAME.json
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import worker

CHART = worker.PROJECT / "docs" / "throughput.png"
PHASES = {"warmup": "warm-up epoch", "joint": "joint epoch", "evaluate": "evaluation"}
CONTENDERS = {  # label and colour
    "ours": ("this program (JAX)", "#2a6fbb"),
    "tuned": ("PyTorch, tuned", "#8fa3b5"),
    "reference_like": ("PyTorch, as the reference", "#cfd6dc"),
}


def draw(summary: dict, path: pathlib.Path = CHART) -> pathlib.Path:
    """Draws the config mixed: a panel a phase, a bar a contender, its whisker the spread."""
    from matplotlib import figure  # the workers need not wait for it

    result = summary["configs"]["mixed"]
    shown = [name for name in CONTENDERS if name in result["contenders"]]
    picture = figure.Figure(figsize=(9, 2.6), dpi=200, layout="constrained")
    panels = picture.subplots(1, len(result["phases"]), sharey=True, squeeze=False)[0]
    for panel, phase in zip(panels, result["phases"], strict=True):
        for place, name in enumerate(shown):
            figures = result["contenders"][name]["images_per_second"][phase]
            low, middle, high = (figures[key] for key in ("min", "median", "max"))
            panel.barh(place, middle, color=CONTENDERS[name][1], height=0.68)
            panel.plot([low, high], [place, place], color="#33404d", linewidth=1.2)
            panel.text(
                high, place, f"  {middle:,.0f}", va="center", fontsize=9,
                fontweight="bold" if name == "ours" else "normal",
            )  # fmt: skip
        panel.set_title(PHASES[phase], fontsize=10, loc="left")
        panel.set_xlim(0, panel.get_xlim()[1] * 1.22)
        panel.set_xticks([])
        panel.tick_params(length=0)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    panels[0].set_yticks(range(len(shown)), [CONTENDERS[name][0] for name in shown])
    panels[0].invert_yaxis()
    cores = f", {summary['host']['cpu_cores']} cores" if summary["device"].endswith("cpu") else ""
    picture.suptitle(
        f"Images per second, mixed mode, batch {summary['options']['batch_size']} "
        f"({summary['device']}{cores}; medians of {result['rounds']} rounds)",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    picture.savefig(path, metadata={"Software": None})
    return path


if __name__ == "__main__":
    draw(json.loads(pathlib.Path(sys.argv[1]).read_text()))
