"""Draws the figures of a run: ``python -m benchmarks.plot figures.json [DIRECTORY]``, by default into ``docs``.

``calls.svg`` is what a call costs, ``bulk.svg`` listing in bulk; a plot whose cases did not run is left as it is.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks import answers, storms
from benchmarks.calls import HELPER, HTTPX, NAIVE, OPENAI, ORJSON, OURS, PLAIN, SPEED, TUNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAGES: Final = answers.PAGES * answers.PER_PAGE * answers.PAGES
_STEP: Final = 0.25  # seconds
_THEIRS, _OURS, _REFUSED = "#9aa5b1", "#2563eb", "#dc2626"
_MARKS: Final = {OPENAI: "s", HTTPX: "^", NAIVE: "o", ORJSON: "v", TUNED: "P", PLAIN: "D", SPEED: "D"}

Results = list[dict[str, Any]]
Lines = dict[str, dict[str, list[float]]]  # by contender and number in flight: a figure for each round


def draw(results: Results, directory: Path) -> None:
    """Write every plot that there are figures for."""
    mpl.rcParams.update({"svg.hashsalt": "infrai", "axes.spines.top": False, "axes.spines.right": False})
    panels = [lines for lines in (_by_concurrency(results, over) for over in ("", ", TLS")) if lines]
    if panels:
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, lines, over in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, ("http", "TLS"), strict=False
        ):
            _lines(axes, lines)
            axes.set(title=f"a call over {over}", xlabel="calls in flight")
        figure.axes[0].set_ylabel("CPU time of a call, us")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        _save(figure, directory / "calls.svg")
    bulk = f"bulk, {answers.PER_PAGES[0]} a page"
    listed = [result for result in results if result["case"] == bulk and result["wall"]]  # not the server's own CPU
    limited = [result for result in results if result["case"] == storms.BUCKET and result["log"]]
    if listed and limited:
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        bars, rates = figure.subplots(1, 2)
        _bars(bars, listed)
        _rates(rates, limited[0]["log"])
        _save(figure, directory / "bulk.svg")


def _save(figure: Figure, target: Path) -> None:
    figure.savefig(target, metadata={"Date": None})


def _by_concurrency(results: Results, over: str) -> Lines:
    """Return what a call costs each."""
    lines: Lines = {}
    for result in results:
        if case := re.fullmatch(rf"get, (\d+) in flight{over}", result["case"]):
            lines.setdefault(result["contender"], {})[case[1]] = result["cpu"]
    return {name: lines[name] for name in _MARKS if name in lines}


def _lines(axes: Axes, lines: Lines) -> None:
    for name, figures in lines.items():
        middle = [median(rounds) for rounds in figures.values()]
        below = [mid - min(rounds) for mid, rounds in zip(middle, figures.values(), strict=True)]
        above = [max(rounds) - mid for mid, rounds in zip(middle, figures.values(), strict=True)]
        axes.errorbar(
            list(figures),
            middle,
            (below, above),
            label=name,
            marker=_MARKS[name],
            capsize=2,
            color=_OURS if name in OURS else _THEIRS,
            linestyle="--" if name == PLAIN else "-",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")


def _bars(axes: Axes, results: Results) -> None:
    seconds = {result["contender"]: median(result["wall"]) * _PAGES / 1e6 for result in results}
    names = sorted(seconds, key=lambda name: -seconds[name])
    colours = [_OURS if name in OURS else _THEIRS for name in names]
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
    parser.add_argument("directory", type=Path, nargs="?", default=Path("docs"))
    arguments = parser.parse_args()
    draw(json.loads(arguments.figures.read_text())["results"], arguments.directory)
