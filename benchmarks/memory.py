"""What calls in flight and listed items hold: one contender in a process of its own, and their measurement (Linux)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import answers
from benchmarks.calls import HTTPX, NAIVE, OPENAI, ORJSON, OURS, Contender, Goals, present
from benchmarks.contenders import CONTENDERS, Call, Spent, parsed, serve
from benchmarks.report import Result, compared
from benchmarks.server import Server
from benchmarks.service import Service, running

_PROCESS: Final = Path("/proc/self")
_MOMENT: Final = 0.05  # seconds between looks at how many wait
MEASURABLE: Final = (_PROCESS / "smaps_rollup").exists()


def resident() -> int:
    """Return the bytes that this process holds, without its garbage; exact, where ``VmRSS`` is out by some pages."""
    gc.collect()
    return _bytes("smaps_rollup", "Rss")


def peak() -> int:
    """Return the most bytes that this process has held."""
    return _bytes("status", "VmHWM")


def _bytes(file: str, field: str) -> int:
    [line] = [line for line in (_PROCESS / file).read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


async def _wait(call: Call, calls: int, service: Service) -> Spent:
    """Make calls that are not answered; tell what they hold once the service has all of them."""
    service.figures()  # what asking takes is there from now on
    before = resident()
    waiting = [asyncio.ensure_future(call()) for _ in range(calls)]
    while service.figures()["waiting"] < calls:
        await asyncio.sleep(_MOMENT)
        for ended in filter(asyncio.Future.done, waiting):
            raise SystemExit(f"a call did not wait: {ended}")
    held = resident() - before
    for one in waiting:
        one.cancel()
    await asyncio.wait(waiting)
    return {"calls": calls, "bytes": held}


async def _keep(call: Call, calls: int, _: Service) -> Spent:
    """Keep what the calls get; tell what that holds."""
    before = resident()
    kept = [await call() for _ in range(calls)]
    return {"calls": len(kept), "bytes": resident() - before}


WORKS: Final = {"wait": ("get", _wait), "keep": ("page", _keep)}


# --- measuring ---


@attrs.frozen
class Memory:
    """What to measure: so many calls, of which each counts as so much of the unit."""

    work: str
    calls: int
    unit: str
    bytes: float  # to the unit
    contenders: tuple[str, ...]
    goals: Goals


_CALLS: Final = 1000
_ITEMS: Final = 100_000

CASES: Final = {
    "memory: a call, 1,000 in flight": Memory(
        "wait", _CALLS, "kB", 1e3 * _CALLS, (NAIVE, HTTPX, OPENAI, *OURS), {NAIVE: dict.fromkeys(OURS, 1.10)}
    ),
    "memory: 100,000 items": Memory(
        "keep", _ITEMS // answers.PER_PAGE, "MB", 1e6, (NAIVE, ORJSON, OPENAI, *OURS), {NAIVE: {}}
    ),
}


def measure(title: str, server: Server, *, rounds: int) -> list[Result]:
    """Measure one case, each contender and round in a fresh process."""
    case = CASES[title]
    results = [Result(title, name, case.unit, clock="") for name in present(*case.contenders)]
    for _ in range(rounds):
        for result in results:
            with (
                _url(case.work, server) as url,
                Contender(result.contender, case.work, url, in_flight=_CALLS, module="benchmarks.memory") as contender,
            ):
                result.wall.append(contender.told(case.calls)["bytes"] / case.bytes)
    return compared(results, case.goals)


@contextmanager
def _url(work: str, server: Server) -> Iterator[str]:
    """Give the fixed answers' address, or that of a service which is silent."""
    if work == "keep":
        yield server.http
        return
    with running("silent", latency=0) as service:
        yield service.url


def _serve(arguments: Any) -> None:
    work, measured = WORKS[arguments.work]
    service = Service(arguments.url)
    serve(arguments, work, lambda call, calls, _: measured(call, calls, service))


if __name__ == "__main__":
    _serve(parsed(__doc__, CONTENDERS, WORKS))
