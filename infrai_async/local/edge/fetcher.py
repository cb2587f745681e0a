"""Find responses in the cache, or fetch them from their origins with request collapsing.

A cache miss starts a *flight*, a fetch that runs in its own task. Requests for the same key that arrive meanwhile join
the flight if its response may be shared. When the last of them has gone, the flight is cancelled, unless its response
is cacheable and has a known length. A flight during which its key is purged still serves its requests, but its
response is not cached: it may date from before the purge.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import attrs
from multidict import CIMultiDict

from infrai_async.local._errors import RequestRefused
from infrai_async.local.edge.cache import Cache, Entry, Key
from infrai_async.local.edge.origins import FAILURES, Origins, as_refusal, end_to_end, origin_url, request_headers
from infrai_async.local.edge.policy import (
    Headers,
    OriginResponse,
    answer,
    initial_age,
    parse_directives,
    refreshed,
)
from infrai_async.local.edge.spool import BodyIncomplete, Spool
from infrai_async.local.services.base import Data
from infrai_async.local.services.cdn import Purge

_LARGEST: Final = 2**28
"""The size of the largest cacheable body, in bytes."""
_WINDOW: Final = 2**20
"""Bytes of an uncacheable body that are buffered; the fastest reader can be ahead of the slowest by that much."""
_FAILED: Final = frozenset({500, 502, 503, 504})
_logger = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class CacheRequest:
    """A request that the cache may answer, with everything that a flight needs to know about it."""

    method: str
    key: Key
    headers: Headers
    client: str | None
    settings: Data

    @property
    def may_be_shared(self) -> bool:
        """Whether the response may be shared with other requests; other cache directives of clients are ignored."""
        return self.method == "GET" and "no-store" not in parse_directives(self.headers.getall("Cache-Control", ()))

    @property
    def ttl(self) -> int:
        """The distribution's freshness lifetime for responses without one of their own, in seconds."""
        return int(self.settings["cache_ttl_seconds"])


@attrs.frozen(eq=False)
class CacheHit:
    """The outcome of a lookup or fetch.

    Attributes:
        entry: the response.
        label: the value of ``X-Cache``, which says where the response came from.
        shared: whether the response may answer other requests too.
    """

    entry: Entry
    label: str
    shared: bool


class _Flight:
    """A fetch in progress, entered by each request that waits for it and cancelled when the last one leaves.

    Attributes:
        joinable: whether further requests may join.
        keep: whether the response may be cached.
        goes_on: whether the fetch continues without waiting requests, as its response is cacheable and of known length.
        hit: the outcome.
    """

    def __init__(self, *, joinable: bool) -> None:
        self.joinable = joinable
        self.keep = True
        self.goes_on = False
        self.hit: asyncio.Future[CacheHit] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self._interested = 0

    def __enter__(self) -> Self:
        self._interested += 1
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._interested -= 1
        if not self._interested and not self.goes_on and self.task is not None:
            self.joinable = False
            self.task.cancel()


class Fetcher:
    """Find responses in the cache, or fetch them from their origins.

    Args:
        origins: the connections to the origins.
        directory: the directory for large cached bodies.
    """

    def __init__(self, origins: Origins, directory: Path) -> None:
        self._origins = origins
        self._directory = directory
        self._cache = Cache()
        self._flights: dict[Key, list[_Flight]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Cancel all fetches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self, id: str, purge: Purge, tags: Iterable[str]) -> None:
        """Remove purged responses, and prevent fetches in progress from caching responses that the purge may concern.

        A purge by tags concerns every fetch of the distribution, because the tags of its response are not known yet.
        """
        own = frozenset(tags)
        self._cache.drop(id, lambda target, answer: purge.hits(target, answer.tags | own))
        for key in [key for key in self._flights if key[0] == id]:
            if purge.tags or purge.hits(key[1], own):
                self._detach(key)

    def forget(self, key: Key) -> None:
        """Remove all responses for one key, and prevent fetches in progress from caching theirs."""
        self._cache.clear(key)
        self._detach(key)

    def _detach(self, key: Key) -> None:
        for flight in self._flights.pop(key, ()):
            flight.keep = False

    @asynccontextmanager
    async def find(self, request: CacheRequest) -> AsyncIterator[CacheHit]:
        """Find the response to a request; its body may still be arriving, and arrives while the context is entered.

        Raises:
            RequestRefused: if the origin failed.
        """
        kept, now = self._cache.find(request.key, request.headers), time.monotonic()
        if kept is not None and kept.answer.is_fresh(now, request.ttl):
            yield CacheHit(kept, "HIT", True)
        elif kept is not None and kept.answer.is_tolerable(now, request.ttl, "stale-while-revalidate"):
            if not self._flights.get(request.key):
                self._spawn(self._renew(self._launch(request, kept, joinable=True)))
            yield CacheHit(kept, "STALE", True)
        else:
            async with self._fetched(request, kept) as hit:
                yield hit

    @asynccontextmanager
    async def _fetched(self, request: CacheRequest, kept: Entry | None) -> AsyncIterator[CacheHit]:
        """Join a flight for the same key, or start one."""
        joinable = request.may_be_shared
        tried: set[_Flight] = set()
        while joinable and (flight := self._under_way(request.key, tried)):
            tried.add(flight)
            with flight:
                hit = await asyncio.shield(flight.hit)
                # Whether the response fits this request is known only now that its headers have arrived. If it may
                # not be shared at all, waiting for other flights would only serialize the requests.
                if hit.shared and hit.entry.answer.fits(request.headers) and hit.entry.body.joinable:
                    yield attrs.evolve(hit, label="HIT")
                    return
                joinable = hit.shared
        with self._launch(request, kept, joinable=joinable) as flight:
            yield await asyncio.shield(flight.hit)

    def _under_way(self, key: Key, tried: set[_Flight]) -> _Flight | None:
        return next((one for one in self._flights.get(key, ()) if one.joinable and one not in tried), None)

    async def _renew(self, flight: _Flight) -> None:
        """Complete a background revalidation, for which no request is waiting."""
        with flight, suppress(RequestRefused, BodyIncomplete):
            hit = await asyncio.shield(flight.hit)
            with hit.entry.body.reader() as reader:
                while hit.shared and await reader.read(_WINDOW):
                    pass

    def _launch(self, request: CacheRequest, kept: Entry | None, *, joinable: bool) -> _Flight:
        flight = _Flight(joinable=joinable)
        self._flights.setdefault(request.key, []).append(flight)
        flight.task = self._spawn(self._fly(flight, request, kept))
        return flight

    async def _fly(self, flight: _Flight, request: CacheRequest, kept: Entry | None) -> None:
        try:
            await self._fetch(flight, request, kept)
        except Exception as error:
            if not flight.hit.done():
                self._fail(flight, request, kept, error)
            elif not isinstance(error, FAILURES):
                _logger.exception("a fetch failed")
        finally:
            flight.hit.cancel()
            flights = self._flights.get(request.key, [])
            if flight in flights:
                flights.remove(flight)
            if not flights:
                self._flights.pop(request.key, None)

    def _fail(self, flight: _Flight, request: CacheRequest, kept: Entry | None, error: Exception) -> None:
        if kept is not None and kept.answer.is_tolerable(time.monotonic(), request.ttl, "stale-if-error"):
            flight.hit.set_result(CacheHit(kept, "STALE", True))
        else:
            flight.hit.set_exception(as_refusal(error) if isinstance(error, FAILURES) else error)
            flight.hit.exception()  # every waiter receives it; without this asyncio could log it as never retrieved

    async def _fetch(self, flight: _Flight, request: CacheRequest, kept: Entry | None) -> None:
        began = time.monotonic()
        url = origin_url(request.settings["origin"], request.key[1])
        asking = request_headers(request.headers, request.client, cached=True)
        asking.update(kept.answer.validators() if kept else {})
        async with self._origins.request(request.method, url, asking) as response:
            now, headers = time.monotonic(), end_to_end(response.headers)
            received = datetime.now(UTC)
            born = now - initial_age(headers, received, now - began)
            if kept is not None and response.status == 304:
                flight.hit.set_result(self._confirmed(flight, request, kept, headers, born, received))
            elif (
                kept is not None
                and response.status in _FAILED
                and kept.answer.is_tolerable(now, request.ttl, "stale-if-error")
            ):
                flight.hit.set_result(CacheHit(kept, "STALE", True))
            else:
                if kept is not None and response.status < 500:
                    self._cache.remove(request.key, kept)
                origin_response = answer(response.status, headers, request.headers, born, received)
                await self._receive(flight, request, origin_response, response)

    def _confirmed(
        self,
        flight: _Flight,
        request: CacheRequest,
        kept: Entry,
        headers: CIMultiDict[str],
        born: float,
        received: datetime,
    ) -> CacheHit:
        entry = Entry(refreshed(kept.answer, headers, request.headers, born, received), kept.body)
        self._cache.remove(request.key, kept)
        if flight.keep and entry.answer.may_be_kept(request.headers, request.ttl):
            self._cache.put(request.key, entry)
        return CacheHit(entry, "REVALIDATED", entry.answer.is_fresh(time.monotonic(), request.ttl))

    async def _receive(
        self, flight: _Flight, request: CacheRequest, origin_response: OriginResponse, response: aiohttp.ClientResponse
    ) -> None:
        storable = request.may_be_shared and origin_response.may_be_kept(request.headers, request.ttl)
        storable = storable and (response.content_length or 0) <= _LARGEST
        flight.goes_on = storable and response.content_length is not None
        body = Spool(_LARGEST if storable else _WINDOW, self._directory)
        entry = Entry(origin_response, body)
        flight.hit.set_result(
            CacheHit(entry, "MISS", storable and origin_response.is_fresh(time.monotonic(), request.ttl))
        )
        try:
            async for chunk in response.content.iter_chunked(2**16):
                await body.append(chunk)
            if request.method == "GET":
                origin_response.headers["Content-Length"] = str(body.size)
            body.end(complete=True)
            if storable and flight.keep and body.whole:
                self._cache.put(request.key, entry)
        finally:
            if not body.complete:
                body.end(complete=False)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
