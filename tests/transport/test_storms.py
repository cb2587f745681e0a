"""The pool under stress: the benchmarks' probes, smaller or in a time of their own, so that no machine is too slow.

What depends on time runs beside its service, in a loop whose clock hardly moves while anybody computes.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import aiohttp
import attrs
import pytest

from benchmarks import answers, storms
from benchmarks.service import LATENCY, Bucket, Connection, Listing, Manner, Outage, Service, running
from infrai_async import AsyncInfrai, fan_out

T = TypeVar("T")
Probe: TypeAlias = Callable[[Service], Awaitable[T]]
Run: TypeAlias = Callable[[Manner, Probe[T]], T]

ROOT = Path(__file__).parents[2]
SOCKET = "service"


class Clock(selectors.DefaultSelector):
    """Time for a loop: where nothing is ready, the next timer's has come; else a look at it takes a microsecond.

    It needs Unix sockets: what is written to one can be read from the other at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = time.monotonic()

    def __call__(self) -> float:
        self._now += 1e-6  # moments that differ keep their order
        return self._now

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for what never comes"
            self._now += timeout
        return ready


@attrs.frozen
class Beside(Service):
    """A service in the loop of its callers."""

    manner: Manner
    session: aiohttp.ClientSession

    def figures(self) -> dict[str, Any]:
        return self.manner.figures()

    def client(self, **options: Any) -> AsyncInfrai:
        return super().client(session=self.session, **options)


@asynccontextmanager
async def beside(manner: Manner) -> AsyncIterator[Service]:
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(manner, LATENCY), SOCKET)
    async with server:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(SOCKET, limit=0)) as session:
            yield Beside("http://localhost", manner, session)
        await asyncio.sleep(1)  # the server's side sees its connections end


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run[Any]:
    """Return what runs a probe against a service, in a time of their own."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("needs Unix sockets")
    monkeypatch.chdir(tmp_path)  # a socket's name must be short

    async def probed(manner: Manner, probe: Probe[T]) -> T:
        async with beside(manner) as service:
            return await probe(service)

    def run(manner: Manner, probe: Probe[T]) -> T:
        clock = Clock()
        with monkeypatch.context() as patched:
            patched.setattr(time, "monotonic", clock)
            with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
                return runner.run(probed(manner, probe))

    return run


def test_calls_that_come_while_the_service_pauses_wait_and_do_not_ask(run: Run[storms.Told]) -> None:
    manner = Outage(seconds=1.9, retry_after=2.0)
    told = run(manner, lambda service: storms.staggered(service, calls=500, every=0.002))
    assert told["wrong"] == 0, told["why"]
    assert told["refused"] == 3  # at 0, 2 and 4 ms: the first answer takes 5
    assert told["requests"] == 500 + 3
    moments = [moment for moment, _, _ in manner.figures()["log"]]
    assert 2.0 <= moments[3] - moments[2] - LATENCY < 2.01  # the pause begins anew with the last of their answers


@pytest.mark.parametrize("title", [storms.PAUSE, storms.BUCKET])
def test_a_service_that_pushes_back_gets_as_much_as_it_allows(title: str, run: Run[storms.Told]) -> None:
    storm = storms.STORMS[title]
    manner: Manner = {"outage": Outage, "bucket": Bucket}[storm.manner](**storm.options)
    told = run(manner, storm.probe)
    figures = {what: (figure(told), goal) for what, figure, goal in storm.rows if goal is not None}
    assert {what for what, (figure, goal) in figures.items() if figure > goal} == set(), figures


def test_a_slow_consumer_holds_the_listing_back(run: Run[tuple[int, int]]) -> None:
    async def read(service: Service) -> tuple[int, int]:
        count = most = 0
        async with service.client() as client:
            projects = client.db.project.list(limit=answers.PER_PAGE, max_items=200)
            pairs = fan_out(projects, lambda p: client.db.branch.list(project_id=p.id, limit=10), concurrency=64)
            async for _ in pairs:
                count += 1
                if count % 1_000 == 0:
                    await asyncio.sleep(60)  # all that may be fetched by then has been
                    most = max(most, service.figures()["branches"] - count)
        return count, most

    count, most = run(Listing(), read)
    assert count == 200 * 100
    # what its reader was given and what waits, each a thousand and the page that made it so many, and who was fetching
    assert 0 < most <= 2 * 1_010 + 64 * 10


@pytest.mark.anyio
async def test_calls_end_right_and_effects_happen_once_while_answers_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where ``python -m benchmarks.service`` is found
    with running("chaos", each=0.03) as service:
        told = await storms.chaos(service, calls=1_000)
    assert told["wrong"] == 0, told["why"]
    assert (told["made"], told["twice"], told["lost"]) == (500, 0, 0)
    assert set(told["faults"]) >= {f"{kind}, after the effect" for kind in ("reset", "503", "truncated")}
    assert told["replayed"] > 0  # some were asked for again that had been done
