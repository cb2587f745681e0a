"""Results, as a table to read and as JSON to keep."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any, Final, Literal, TypeAlias

import attrs

_PACKAGES: Final = (
    "infrai-async",
    "aiohttp",
    "attrs",
    "cattrs",
    "httpx",
    "multidict",
    "openai",
    "orjson",
    "pydantic",
    "requests",
    "yarl",
)

Clock: TypeAlias = Literal["CPU", "wall", ""]  # none for what is counted


@attrs.define
class Result:
    """One contender's figures in one case: one for each round, in ``unit``; those of ``clock`` are the ones that count.

    ``base`` is who it is compared with, round by round. ``goal`` is for the ratio, or for the figure itself where
    there is nobody to compare with. ``log`` says what happened when, in seconds, for the plot.
    """

    case: str
    contender: str
    unit: str
    goal: float | None = None
    cpu: list[float] = attrs.field(factory=list)
    wall: list[float] = attrs.field(factory=list)
    base: Result | None = None
    clock: Clock = "CPU"
    log: list[tuple[float, int]] = attrs.field(factory=list)

    def add(self, turns: Sequence[tuple[float, float]]) -> None:
        """Add a round: the medians of its turns' CPU and wall times."""
        self.cpu.append(median(cpu for cpu, _ in turns))
        self.wall.append(median(wall for _, wall in turns))

    @property
    def figures(self) -> list[float]:
        """What counts here."""
        return self.cpu if self.clock == "CPU" else self.wall

    @property
    def ratios(self) -> list[float]:
        """The figures against the base's, of each round."""
        if self.base is None:
            return []
        return [mine / other for mine, other in zip(self.figures, self.base.figures, strict=True)]

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached, where there is one."""
        return None if self.goal is None else median(self.ratios or self.figures) <= self.goal


def compared(results: Sequence[Result], goals: Mapping[str, Mapping[str, float | None]]) -> list[Result]:
    """Return the results against the first base of ``goals``, then those with goals once more against each further one.

    ``goals`` has the bases, and for each the ratios to stay under, by contender. Bases that were not measured are left
    out; without any the results stay as they are.
    """
    of = {result.contender: result for result in results}
    blocks: list[list[Result]] = []
    for base, wanted in goals.items():
        if base not in of:
            continue
        name = f"{of[base].case}, to {base}" if blocks else of[base].case
        shown = [result for result in results if not blocks or result.contender in (base, *wanted)]
        shown.sort(key=lambda result: result.contender != base)  # the base comes first
        blocks.append(
            [
                attrs.evolve(
                    result,
                    case=name,
                    base=None if result.contender == base else of[base],
                    goal=wanted.get(result.contender),
                )
                for result in shown
            ]
        )
    return [result for block in blocks for result in block] or list(results)


def table(results: Iterable[Result]) -> str:
    """Return the results as a table: what counts, with its spread, and the other clock's median beside it."""
    head = ("case", "contender", "median", "min - max", "also", "ratio", "min - max", "goal", "")
    rows = [head]
    case = ""
    for result in results:
        rows.append(
            (
                result.case if result.case != case else "",
                result.contender,
                f"{_short(median(result.figures))} {result.unit} {result.clock}".rstrip(),
                f"{_short(min(result.figures))} - {_short(max(result.figures))}",
                _beside(result),
                f"{median(result.ratios):.3g}" if result.ratios else "",
                f"{min(result.ratios):.3g} - {max(result.ratios):.3g}" if result.ratios else "",
                f"{result.goal:.3g}" if result.goal is not None else "",
                {True: "ok", False: "over", None: ""}[result.reached],
            )
        )
        case = result.case
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _short(figure: float) -> str:
    return f"{figure:.3g}" if abs(figure) < 1000 else f"{figure:.0f}"


def _beside(result: Result) -> str:
    if result.clock == "wall":
        return f"{_short(median(result.cpu))} CPU"
    return f"{_short(median(result.wall))} wall" if result.clock and result.wall else ""


def page(results: Iterable[Result], figures: dict[str, Any]) -> str:
    """Return the table as a page to keep, under what was measured and where, with the plots."""
    settings = figures["settings"]
    return f"""# What the client costs

`{" ".join(figures["command"])}`, {figures["at"]}: Python {figures["python"]}, {figures["cpus"]} processors,
{figures["platform"]}; {settings["server"]}, {settings["rounds"]} rounds of {settings["turns"]} turns.
{", ".join(f"{name} {number}" for name, number in figures["packages"].items() if number)}.
[How it is measured](../benchmarks/README.md), [every figure](benchmarks.json).

![CPU time of a call, by client and number in flight](calls.svg)

![wall time of listing in bulk, and calls delivered by a limited service](bulk.svg)

```
{table(results)}
```"""


def document(results: Iterable[Result], settings: dict[str, Any]) -> dict[str, Any]:
    """Return everything as plain JSON types: where and how it was measured, and every figure."""
    return {
        "command": ["python", "-m", "benchmarks", *sys.argv[1:]],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "packages": {name: _version(name) for name in _PACKAGES},
        "settings": settings,
        "results": [
            {
                "case": result.case,
                "contender": result.contender,
                "unit": result.unit,
                "clock": result.clock,
                "cpu": result.cpu,
                "wall": result.wall,
                "ratios": result.ratios,
                "goal": result.goal,
                "reached": result.reached,
                "log": result.log,
            }
            for result in results
        ],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
