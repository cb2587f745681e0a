"""What a call costs: contenders in processes of their own take turns, so that all see the same moments of the machine.

Each round starts fresh processes (how the heap happens to lie is part of what varies), warms them up, and lets them
take short turns one after another. A round's figure is the median over its turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Final

import attrs

from benchmarks import answers
from benchmarks.report import Clock, Result
from benchmarks.server import Server

_PATIENCE: Final = 30.0  # seconds for a contender to end

_ASYNCHRONOUS: Final = "benchmarks.contenders"
_BLOCKING_ONE: Final = "benchmarks.blocking"
NAIVE: Final = "naive aiohttp"
PLAIN: Final = "infrai-async"
SPEED: Final = "infrai-async[speed]"
REQUESTS: Final = "requests.Session"
HTTPX: Final = "httpx.Client"
BY_HAND: Final = "aiohttp by hand"
HELPER: Final = "the seeds' helper"
# everybody else is the SDK
_WHO: Final = {NAIVE: "naive", REQUESTS: "requests", HTTPX: "httpx", BY_HAND: "by_hand", HELPER: "helper"}


@attrs.frozen
class Case:
    """One thing to measure; ``goals`` are the ratios that the client is meant to stay under."""

    name: str
    work: str
    in_flight: int
    calls: int  # in one turn
    tls: bool = False
    goals: tuple[tuple[str, float], ...] = ()
    base: str = NAIVE
    blocking: bool = False


def cases() -> list[Case]:
    """Return the cases in their order."""
    found = []
    for tls in (False, True):
        over = ", TLS" if tls else ""
        goals = ((SPEED, 0.90), (PLAIN, 0.95)) if tls else ((SPEED, 0.80), (PLAIN, 0.85))
        for in_flight in (1, 16, 64):
            found.append(Case(f"get, {in_flight} in flight{over}", "get", in_flight, 640, tls, goals))
        goals = ((SPEED, 1.10), (PLAIN, 1.30)) if tls else ((SPEED, 1.00), (PLAIN, 1.20))
        found.append(Case(f"page of 100{over}", "page", 1, 160, tls, goals))
    return found + [_blocking(*row) for row in _BLOCKING if find_spec(row[0].partition(".")[0])]


# Against whom, from how many threads, calls in a turn, how many times as fast the client is meant to be.
_BLOCKING: Final = ((REQUESTS, 1, 340, 2.0), (HTTPX, 1, 340, 1.5), (REQUESTS, 16, 640, 3.5), (HTTPX, 16, 640, None))


def _blocking(base: str, threads: int, calls: int, times: float | None) -> Case:
    name = f"blocking get, {threads} thread{'s' if threads > 1 else ''}, to {base.partition('.')[0]}"
    goals = () if times is None else ((SPEED, 1 / times), (PLAIN, 1 / times))
    return Case(name, "get", threads, calls, goals=goals, base=base, blocking=True)


class Contender:
    """A contender's process."""

    def __init__(
        self,
        name: str,
        work: str,
        url: str,
        *,
        in_flight: int = 1,
        authority: Path | None = None,
        module: str = _ASYNCHRONOUS,
    ) -> None:
        self.name = name
        options = [f"--in-flight={in_flight}"]
        if name == PLAIN:
            options.append("--without-orjson")
        if authority is not None:
            options.append(f"--authority={authority}")
        command = [sys.executable, "-m", module, _WHO.get(name, "sdk"), work, url, *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def turn(self, calls: int) -> tuple[float, float]:
        """Make calls; return the microseconds of CPU and wall time that each took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(calls, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait(_PATIENCE)}")
        spent = json.loads(line)
        return spent["cpu"] / spent["calls"] * 1e6, spent["wall"] / spent["calls"] * 1e6


def measure(case: Case, server: Server, authority: Path | None, *, rounds: int, turns: int) -> list[Result]:
    """Measure a case; one result for each contender."""
    url = server.https if case.tls else server.http
    assert url is not None
    names = [case.base, PLAIN, *([SPEED] if find_spec("orjson") else [])]
    results = [Result(case.name, name, "us", dict(case.goals).get(name), clock=_clock(case.blocking)) for name in names]
    for number in range(rounds):
        with ExitStack() as stack:
            contenders = [
                stack.enter_context(
                    Contender(
                        name,
                        case.work,
                        url,
                        in_flight=case.in_flight,
                        authority=authority if case.tls else None,
                        module=_BLOCKING_ONE if case.blocking else _ASYNCHRONOUS,
                    )
                )
                for name in names
            ]
            spent = take_turns([lambda c=c: c.turn(case.calls) for c in contenders], turns, first=number)  # type: ignore[misc]
        for result, figures in zip(results, spent, strict=True):
            result.cpu.append(median(cpu for cpu, _ in figures))
            result.wall.append(median(wall for _, wall in figures))
    for result in results[1:]:
        result.base = results[0]
    return results


def _clock(blocking: bool) -> Clock:
    return "wall" if blocking else "CPU"


def take_turns(
    contenders: Sequence[Callable[[], tuple[float, float]]], turns: int, *, first: int
) -> list[list[tuple[float, float]]]:
    """Let each take so many turns, after one to warm up; who begins changes from turn to turn."""
    spent: list[list[tuple[float, float]]] = [[] for _ in contenders]
    for turn in range(turns + 1):
        for offset in range(len(contenders)):
            which = (first + turn + offset) % len(contenders)
            figure = contenders[which]()
            if turn:
                spent[which].append(figure)
    return spent


def measure_iteration(server: Server, *, blocking: bool, rounds: int, turns: int) -> list[Result]:
    """Measure what reading items adds to each, above reading the same pages as pages.

    The asynchronous client fetches the pages; the blocking one has them, so that only its way into the loop is left.
    """
    case, goal, calls = ("blocking iterate", 30.0, 100) if blocking else ("iterate", 100.0, 15)
    name, module = SPEED if find_spec("orjson") else PLAIN, _BLOCKING_ONE if blocking else _ASYNCHRONOUS
    result = Result(f"{case}, per item above its page", name, "ns", goal, clock=_clock(blocking))
    for number in range(rounds):
        with (
            Contender(name, "pages", server.http, module=module) as pages,
            Contender(name, "items", server.http, module=module) as items,
        ):
            spent = take_turns([lambda: pages.turn(calls), lambda: items.turn(calls)], 6 * turns, first=number)
        for column, figures in ((0, result.cpu), (1, result.wall)):
            of_pages, of_items = (median(figure[column] for figure in turn) for turn in spent)
            figures.append((of_items - of_pages) * 1e3 / (answers.PAGES * answers.PER_PAGE))
    return [result]
