"""How the client behaves when the service pushes back or breaks, and how much it holds: probes and their goals.

A probe takes a service that runs and tells what happened; ``python -m benchmarks.storms TITLE URL`` is one in a
process of its own. The tests run the same probes, smaller.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from benchmarks import answers
from benchmarks.memory import peak, resident
from benchmarks.report import Result
from benchmarks.service import Service, running

if TYPE_CHECKING:
    from infrai_async import AsyncInfrai

_LONGEST: Final = 180.0  # seconds for one probe

PAUSE: Final = "storm: a call each 20 ms into a pause of 2 s"
BUCKET: Final = "storm: 200 calls/s allowed, 1,000 at once"
ALLOWED: Final = 200.0

Told: TypeAlias = dict[str, Any]


async def staggered(service: Service, *, calls: int = 75, every: float = 0.02) -> Told:
    """Make a call each ``every`` seconds while the service refuses, and see how many run into it."""
    async with service.client() as client:

        async def get(number: int) -> bool:
            await asyncio.sleep(number * every)
            return await _gets(client, number)

        told = await _together(get(number) for number in range(calls))
    log = service.figures()["log"]
    refused = {which for _, status, which in log if status == 429}
    return told | {"refused": len(refused), "requests": len(log)}


async def bucket(service: Service, *, calls: int = 1000, after: float = 1.0) -> Told:
    """Make all calls at once; ``late`` is the share refused of what came ``after`` so many seconds."""
    async with service.client() as client:
        told = await _together(_gets(client, number) for number in range(calls))
    log = [(round(moment, 4), status) for moment, status, _ in service.figures()["log"]]
    late = [status for moment, status in log if moment >= after]
    refused = sum(status == 429 for _, status in log)
    return told | {"refused": refused, "late": late.count(429) / max(1, len(late)), "log": log}


async def chaos(service: Service, *, calls: int = 10_000, in_flight: int = 256) -> Told:
    """Read and create in turn while answers break, and compare what the callers got with what the service did."""
    # Without a time limit, which on a slow machine the last of so many calls would meet.
    async with service.client(max_concurrency=in_flight, timeout=None) as client:

        async def create(number: int) -> bool:
            name = f"shop-{number}"
            return (await client.db.project.create(name=name)).name == name

        told = await _together(_gets(client, number) if number % 2 else create(number) for number in range(calls))
    told |= service.figures()
    return told | {"lost": (calls + 1) // 2 - told["made"]}


async def memory(service: Service, *, projects: int = 1000, pause: float = 0.02) -> Told:
    """List a thousand branches of each project for a consumer that pauses after every thousand; Linux only."""
    from infrai_async import fan_out

    async with service.client() as client:
        await client.db.project.list(limit=answers.PER_PAGE).page()  # everything is loaded by then
        start, began, items = resident(), time.monotonic(), 0
        parents = client.db.project.list(limit=answers.PER_PAGE, max_items=projects)
        async for _ in fan_out(parents, lambda p: client.db.branch.list(project_id=p.id, limit=100), concurrency=64):
            items += 1
            if items % 1000 == 0:
                await asyncio.sleep(pause)
        seconds = time.monotonic() - began
    return {"items": items, "mib": (peak() - start) / 2**20, "seconds": seconds}


async def _together(calls: Iterable[Awaitable[bool]]) -> Told:
    """Make calls at once; tell how long they took and how many did not end right, and why."""
    began = time.monotonic()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    wrong = Counter(repr(end) for end in ended if end is not True)
    return {"seconds": time.monotonic() - began, "wrong": wrong.total(), "why": wrong}


async def _gets(client: AsyncInfrai, number: int) -> bool:
    wanted = f"prj_{number:06}"
    return (await client.db.project.get(wanted)).id == wanted


# --- measuring ---


@attrs.frozen
class Storm:
    """A probe, the service it runs against, and what counts of what it tells, with goals."""

    probe: Callable[[Service], Awaitable[Told]]
    manner: str
    options: dict[str, float]
    rows: tuple[tuple[str, Callable[[Told], float], float | None], ...]


_RIGHT: Final = ("calls that ended wrong", itemgetter("wrong"), 0)
_SECONDS: Final = ("seconds", itemgetter("seconds"), None)

STORMS: Final = {
    PAUSE: Storm(
        staggered,
        "outage",
        {"seconds": 1.9, "retry_after": 2.0},
        (
            _RIGHT,
            ("calls that saw a 429", itemgetter("refused"), 4),
            ("requests of 75 calls", itemgetter("requests"), None),
            ("time / ideal 3.5 s", lambda told: told["seconds"] / 3.5, 1.10),
        ),
    ),
    BUCKET: Storm(
        bucket,
        "bucket",
        {"rate": ALLOWED, "burst": 20.0, "retry_after": 0.1},
        (
            _RIGHT,
            ("time / ideal 4.9 s", lambda told: told["seconds"] / 4.9, 1.15),
            ("% refused after 1 s", lambda told: told["late"] * 100, 5),
            ("refused in all", itemgetter("refused"), None),
        ),
    ),
    "storm: 3 % of the answers broken": Storm(
        chaos,
        "chaos",
        {"each": 0.01},
        (
            _RIGHT,
            ("effects done twice", itemgetter("twice"), 0),
            ("effects lost", itemgetter("lost"), 0),
            ("answers broken", lambda told: sum(told["faults"].values()), None),
            ("effects asked for again", itemgetter("replayed"), None),
            _SECONDS,
        ),
    ),
    "memory: a million items": Storm(
        memory,
        "listing",
        {},
        (
            ("items missing", lambda told: 1_000_000 - told["items"], 0),
            ("MiB above the start", itemgetter("mib"), 64),
            _SECONDS,
        ),
    ),
}


async def _run(probe: Callable[[Service], Awaitable[Told]], service: Service) -> Told:
    return await probe(service)


def measure(title: str, *, rounds: int) -> list[Result]:
    """Run one probe so many times, each time with a fresh process and a fresh service."""
    storm = STORMS[title]
    tellings = []
    for _ in range(rounds):
        with running(storm.manner, **storm.options) as service:
            command = [sys.executable, "-m", "benchmarks.storms", title, service.url]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=_LONGEST)
        told = json.loads(done.stdout)
        if told.get("wrong"):
            print(told["why"], file=sys.stderr)
        tellings.append(told)
    results = [
        Result(title, what, "", goal, wall=[figure(told) for told in tellings], clock="")
        for what, figure, goal in storm.rows
    ]
    results[0].log = tellings[0].get("log", [])
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("title", choices=tuple(STORMS))
    parser.add_argument("url")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(_run(STORMS[arguments.title].probe, Service(arguments.url)))))
