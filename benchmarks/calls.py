"""What a call costs: contenders in processes of their own take turns, so that all see the same moments of the machine.

Each round starts fresh processes (how the heap happens to lie is part of what varies), warms them up, and lets them
take short turns one after another. A round's figure is the median over its turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

import attrs

from benchmarks import answers
from benchmarks.contenders import LONGEST
from benchmarks.report import Clock, Result, compared
from benchmarks.server import Server, pin

_PATIENCE: Final = 30.0  # seconds for a contender to end

_ASYNCHRONOUS: Final = "benchmarks.contenders"
_BLOCKING: Final = "benchmarks.blocking"

NAIVE: Final = "naive aiohttp"
ORJSON: Final = "aiohttp + orjson"
TUNED: Final = "aiohttp tuned"
HTTPX: Final = "httpx.AsyncClient"
OPENAI: Final = "openai.AsyncOpenAI"
PLAIN: Final = "infrai-async"
SPEED: Final = "infrai-async[speed]"
REQUESTS: Final = "requests.Session"
BLOCKING_HTTPX: Final = "httpx.Client"
BLOCKING_OPENAI: Final = "openai.OpenAI"
HELPER: Final = "the seeds' helper"
BY_HAND: Final = "aiohttp by hand"
OURS: Final = (PLAIN, SPEED)
_AWAITED: Final = (NAIVE, ORJSON, TUNED, HTTPX, OPENAI, *OURS)
_BLOCKED: Final = (REQUESTS, BLOCKING_HTTPX, BLOCKING_OPENAI, HELPER, *OURS)


@attrs.frozen
class Who:
    """What a contender is called in its module, what it needs, and whether it takes half the calls, being slow."""

    key: str
    needs: str = "aiohttp"
    slow: bool = False


_WHO: Final = {
    NAIVE: Who("naive"),
    ORJSON: Who("orjson", "orjson"),
    TUNED: Who("tuned", "orjson"),
    HTTPX: Who("httpx", "httpx", slow=True),
    OPENAI: Who("openai", "openai", slow=True),
    PLAIN: Who("sdk"),
    SPEED: Who("sdk", "orjson"),
    REQUESTS: Who("requests", "requests"),
    BLOCKING_HTTPX: Who("httpx", "httpx"),
    BLOCKING_OPENAI: Who("openai", "openai"),
    HELPER: Who("helper", "urllib"),
    BY_HAND: Who("by_hand"),
}


def present(*names: str) -> list[str]:
    """Return those of the contenders whose packages are installed."""
    return [name for name in names if find_spec(_WHO[name].needs)]


Goals: TypeAlias = Mapping[str, Mapping[str, float | None]]  # whom to compare with: who is to stay under which ratio


@attrs.frozen
class Case:
    """One thing to measure, by whom, and the goals; the first whom they compare with is everybody's base."""

    name: str
    work: str
    in_flight: int
    calls: int  # in one turn
    contenders: tuple[str, ...]
    goals: Goals
    tls: bool = False
    blocking: bool = False


_CONCURRENCIES: Final = (1, 16, 64, 256)
_WITHOUT_GOAL: Final = 256
_SLACK: Final = 0.15 if sys.version_info >= (3, 13) else 0.0  # on 3.13 the goals against aiohttp are so much looser

_BLOCKING_CASES: Final = (  # threads, calls in a turn, TLS, and the share of requests' and httpx's time to stay under
    (1, 340, False, 1 / 2.0, 1 / 1.5),
    (16, 640, False, 1 / 3.5, None),
    (1, 340, True, None, None),
)


def cases() -> list[Case]:
    """Return the cases in their order."""
    same = Case("get, the same id, 16 in flight", "same", 16, 640, _AWAITED, {NAIVE: {}})
    return [*_awaited_cases(tls=False), same, *_awaited_cases(tls=True), *_blocking_cases()]


def _awaited_cases(*, tls: bool) -> Iterator[Case]:
    over = ", TLS" if tls else ""
    for many in _CONCURRENCIES:
        calls = max(640, 5 * many)
        yield Case(f"get, {many} in flight{over}", "get", many, calls, _AWAITED, _call_goals(many, tls=tls), tls)
    goals = _goals(1.25, 1.10) if tls else _goals(1.25, 1.05, 15)
    yield Case(f"page of 100{over}", "page", 1, 160, _AWAITED, goals, tls)


def _blocking_cases() -> Iterator[Case]:
    for threads, calls, tls, to_requests, to_httpx in _BLOCKING_CASES:
        name = f"blocking get, {threads} thread{'s' if threads > 1 else ''}{', TLS' if tls else ''}"
        goals = {REQUESTS: dict.fromkeys(OURS, to_requests), BLOCKING_HTTPX: dict.fromkeys(OURS, to_httpx)}
        yield Case(name, "get", threads, calls, _BLOCKED, goals, tls, blocking=True)


def _call_goals(in_flight: int, *, tls: bool) -> Goals:
    if in_flight == _WITHOUT_GOAL:
        return _goals()
    return _goals(0.90, 0.85) if tls else _goals(0.75, 0.70, 9 if in_flight == 1 else 10)


def _goals(plain: float | None = None, speed: float | None = None, times: float | None = None) -> Goals:
    """Return the goals against naive aiohttp, and how many times as cheap as openai's client a call is to be."""
    share = None if times is None else 1 / times
    return {
        NAIVE: {name: goal and goal + _SLACK for name, goal in ((PLAIN, plain), (SPEED, speed))},
        OPENAI: dict.fromkeys(OURS, share),
    }


class Contender:
    """A contender's process, ``under`` another program where one is to watch it."""

    def __init__(
        self,
        name: str,
        work: str,
        url: str,
        *,
        in_flight: int = 1,
        authority: Path | None = None,
        module: str = _ASYNCHRONOUS,
        longest: float = LONGEST,
        under: Sequence[str] = (),
    ) -> None:
        self.name = name
        options = [f"--in-flight={in_flight}", f"--longest={longest}"]
        if name == PLAIN:
            options.append("--without-orjson")
        trusted = {} if authority is None else dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(authority))
        command = [*under, sys.executable, "-m", module, _WHO[name].key, work, url, *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | trusted
        )
        if module == _ASYNCHRONOUS:  # a blocking one has threads, and its wall time counts
            pin(self._process, -1)

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def told(self, calls: int) -> dict[str, float]:
        """Make calls; return what it told about them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(calls, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait(_PATIENCE)}")
        return json.loads(line)  # type: ignore[no-any-return]

    def turn(self, calls: int) -> tuple[float, float]:
        """Make calls; return the microseconds of CPU and wall time that each took."""
        spent = self.told(calls)
        return spent["cpu"] / spent["calls"] * 1e6, spent["wall"] / spent["calls"] * 1e6


def measure(case: Case, server: Server, authority: Path | None, *, rounds: int, turns: int) -> list[Result]:
    """Measure a case: every contender, and the client against each that it has goals against."""
    url = server.https if case.tls else server.http
    assert url is not None
    results = [Result(case.name, name, "us", clock=_clock(case.blocking)) for name in present(*case.contenders)]
    for number in range(rounds):
        with ExitStack() as stack:
            contenders = [
                stack.enter_context(
                    Contender(
                        result.contender,
                        case.work,
                        url,
                        in_flight=case.in_flight,
                        authority=authority if case.tls else None,
                        module=_BLOCKING if case.blocking else _ASYNCHRONOUS,
                    )
                )
                for result in results
            ]
            calls = [case.calls // (2 if _WHO[result.contender].slow else 1) for result in results]
            spent = take_turns(
                [partial(contender.turn, count) for contender, count in zip(contenders, calls, strict=True)],
                turns,
                first=number,
            )
        for result, figures in zip(results, spent, strict=True):
            result.add(figures)
    return compared(results, case.goals)


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
    name, module = present(*OURS)[-1], _BLOCKING if blocking else _ASYNCHRONOUS
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
