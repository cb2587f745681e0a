"""Draws ``docs/bulk.svg`` from the figures of a run: ``python -m benchmarks.plot figures.json [SVG]``."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import answers, storms
from benchmarks.calls import BY_HAND, HELPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAGES: Final = answers.PAGES * answers.PER_PAGE * answers.PAGES
_STEP: Final = 0.25  # seconds
_THEIRS, _OURS, _REFUSED = "#9aa5b1", "#2563eb", "#dc2626"

Results = list[dict[str, Any]]


def draw(results: Results, target: Path) -> None:
    """Write the plot."""
    mpl.rcParams.update({"svg.hashsalt": "infrai", "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    bars, rates = figure.subplots(1, 2)
    _bars(bars, [result for result in results if result["case"].startswith("bulk, 10 a page,")])
    [limited] = [result for result in results if result["case"] == storms.BUCKET and result["log"]]
    _rates(rates, limited["log"])
    figure.savefig(target, metadata={"Date": None})


def _bars(axes: Axes, results: Results) -> None:
    seconds = {result["contender"]: median(result["wall"]) * _PAGES / 1e6 for result in results}
    names = sorted(seconds, key=lambda name: -seconds[name])
    colours = [_THEIRS if name in (BY_HAND, HELPER) else _OURS for name in names]
    drawn = axes.barh(names, [seconds[name] for name in names], color=colours)
    axes.bar_label(drawn, [f"{seconds[name]:.3g} s" for name in names], padding=3)
    axes.set(xlabel=f"seconds ({HELPER}: scaled from a part)", title="1,000 projects x 10 pages of 10 branches")
    axes.margins(x=0.2)


def _rates(axes: Axes, log: list[tuple[float, int]]) -> None:
    last = int(max(moment for moment, _ in log) / _STEP)
    edges = [_STEP * number for number in range(last + 2)]
    for status, label, colour in ((200, "delivered", _OURS), (429, "refused (429)", _REFUSED)):
        counted = Counter(int(moment / _STEP) for moment, answered in log if answered == status)
        axes.stairs([counted[number] / _STEP for number in range(last + 1)], edges, label=label, color=colour)
    axes.axhline(storms.ALLOWED, color=_THEIRS, linestyle="--", label="allowed")
    axes.set(xlabel="seconds", ylabel="calls a second", title="1,000 calls at once, 200 a second allowed")
    axes.legend(frameon=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path, help="what --json wrote")
    parser.add_argument("svg", type=Path, nargs="?", default=Path("docs/bulk.svg"))
    arguments = parser.parse_args()
    draw(json.loads(arguments.figures.read_text())["results"], arguments.svg)
