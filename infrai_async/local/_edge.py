"""The edge: answers for distributions, from what it keeps or from their origins.

Whoever asks for what is not kept waits for one *flight*, a fetch of its own life: those who come while it is under way
follow it, if its answer is for everybody. With the last of them it ends. A flight that was under way when something
was purged still serves those who wait for it, and leaves nothing behind.

What the state says of a distribution is trusted for a second; a change made through this gateway is seen at once, one
made through another gateway on the same state within that second, purges included: they are numbered.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import attrs
from aiohttp import web
from multidict import CIMultiDict

from infrai_async.local._body import Body, Broken
from infrai_async.local._caching import Answer, Headers, Purge, answer, initial_age, parse_directives, refreshed
from infrai_async.local._cdn import id_of_edge, read_for_edge
from infrai_async.local._conditional import http_date, select
from infrai_async.local._hosts import host_name, is_edge
from infrai_async.local._origin import (
    VIA,
    Origins,
    as_refusal,
    check_target,
    end_to_end,
    loops,
    origin_url,
    request_headers,
)
from infrai_async.local._refusal import Refusal, not_found
from infrai_async.local._service import Data, Parts
from infrai_async.local._shelf import Entry, Key, Shelf
from infrai_async.local._traffic import Traffic

_logger = logging.getLogger(__name__)
_TRUSTED: Final = 1.0
_MOST_KNOWN: Final = 10_000
_LARGEST: Final = 2**28
"""Bytes of the largest body that is kept."""
_WINDOW: Final = 2**20
"""Bytes of a body that is not kept by which its fastest reader may be ahead of its slowest."""
_AT_ONCE: Final = 2**16
"""Bytes of a body that go out together with their head."""
_NEVER_SENT: Final = ("cache-tag", "surrogate-key", "age")
_FOR_HTTPS: Final = "whatever ends TLS before the gateway says so with X-Forwarded-Proto: https"
_FAILED: Final = frozenset({500, 502, 503, 504})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_ORIGIN_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


@attrs.define
class _Known:
    """What the state said of a distribution, and when; ``settings`` are ``None`` of one that is not there."""

    settings: Data | None
    generation: int
    read: float


@attrs.frozen(eq=False)
class _Found:
    """An entry, what ``X-Cache`` says of how it was come by, and whether others who ask may have it too."""

    entry: Entry
    label: str
    shared: bool


class _Flight:
    """A fetch under way, ended when nobody is interested any more.

    Attributes:
        joinable: whether others may wait for the same.
        keep: whether what it brings may be kept.
        goes_on: whether it is seen to its end all the same, since what it brings is kept and the end is in sight.
        found: what it brings.
    """

    def __init__(self, *, joinable: bool) -> None:
        self.joinable = joinable
        self.keep = True
        self.goes_on = False
        self.found: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()
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


@attrs.frozen(eq=False)
class _Asked:
    """A request for what may be kept: all that a flight needs of it."""

    method: str
    key: Key
    headers: Headers
    client: str | None
    settings: Data

    @property
    def may_be_shared(self) -> bool:
        """Whether the answer may be for others too; nothing else of what a client says of caching changes anything."""
        return self.method == "GET" and "no-store" not in parse_directives(self.headers.getall("Cache-Control", ()))

    @property
    def ttl(self) -> int:
        return int(self.settings["cache_ttl_seconds"])


class Edge:
    """Answers requests to distributions.

    Args:
        parts: the state, and the gateway's address.
        directory: where large bodies lie while they are kept.
    """

    def __init__(self, parts: Parts, directory: Path) -> None:
        self._parts = parts
        self._directory = directory
        self._origins = Origins(self._owned)
        self._shelf = Shelf()
        self._traffic = Traffic(parts.store)
        self._known: dict[str, _Known] = {}
        self._changes: Counter[str] = Counter()
        self._flights: dict[Key, list[_Flight]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to count, and to listen to what the services say."""
        self._parts.edge_changed = self._changed
        self._parts.count_traffic = self._traffic.flush
        self._spawn(self._traffic.run())

    async def aclose(self) -> None:
        """End what is under way and write down what was counted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._origins.aclose()
        await self._traffic.flush()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that addresses a distribution, by its path or by its host name.

        Raises:
            Refusal: there is no such distribution, it does not take this request, or its origin failed.
        """
        id, target = _addressed(request)
        settings = await self._settings(id)
        if settings is None:
            raise not_found("CDN_DISTRIBUTION", id)
        _check(request, settings)
        try:
            if request.method not in ("GET", "HEAD"):
                return await self._pass(request, settings, target)
            asked = _Asked(request.method, (id, target), request.headers, request.remote, settings)
            return await self._read(request, asked)
        except Refusal:
            self._traffic.count(id, hit=False, size=0)
            raise

    # --- what is known of distributions --------------------------------------------------------------------------

    def _owned(self) -> Iterable[int]:
        """Return the ports on which the gateway itself is: nothing there is an origin."""
        postgres = self._parts.postgres
        addresses = [self._parts.base_url] + ([] if postgres is None else [postgres.uri("", "")])
        return {port for address in addresses if (port := urlsplit(address).port)}

    def _changed(self, id: str) -> None:
        self._changes[id] += 1
        if id in self._known:
            self._known[id].read = -_TRUSTED

    async def _settings(self, id: str) -> Data | None:
        known = self._known.get(id)
        if known is not None and time.monotonic() - known.read < _TRUSTED:
            return known.settings
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        changes, read = self._changes[id], time.monotonic()
        settings, generation, purges = await self._parts.store.run(partial(read_for_edge, id))
        if changes == self._changes[id]:
            self._learn(id, _Known(settings, generation, read), purges)
        return settings

    def _learn(self, id: str, now: _Known, purges: Sequence[tuple[int, Purge]]) -> None:
        before = self._known.pop(id, None)
        if now.settings is None:
            del self._changes[id]
        else:
            self._known[id] = now
        if before is None or now.settings is None or _is_another(before, now, len(purges)):
            self._drop(id, Purge(everything=True), ())
            return
        for generation, purge in purges:
            if generation > before.generation:
                self._drop(id, purge, now.settings["tags"])

    def _drop(self, id: str, purge: Purge, tags: Iterable[str]) -> None:
        """Throw away what is purged, and keep nothing that is still coming and may be: its tags are not known yet."""
        own = frozenset(tags)
        self._shelf.drop(id, lambda target, answer: purge.hits(target, answer.tags | own))
        for key in [key for key in self._flights if key[0] == id]:
            if purge.tags or purge.hits(key[1], own):
                self._detach(key)

    def _detach(self, key: Key) -> None:
        for flight in self._flights.pop(key, ()):
            flight.keep = False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- what may be kept ----------------------------------------------------------------------------------------

    async def _read(self, request: web.BaseRequest, asked: _Asked) -> web.StreamResponse:
        kept, now = self._shelf.find(asked.key, asked.headers), time.monotonic()
        if kept is not None and kept.answer.is_fresh(now, asked.ttl):
            return await self._send(request, asked, _Found(kept, "HIT", True))
        if kept is not None and kept.answer.is_tolerable(now, asked.ttl, "stale-while-revalidate"):
            if not self._flights.get(asked.key):
                self._spawn(self._renew(self._launch(asked, kept, joinable=True)))
            return await self._send(request, asked, _Found(kept, "STALE", True))
        joinable = asked.may_be_shared
        tried: set[_Flight] = set()
        while joinable and (flight := self._under_way(asked.key, tried)):
            tried.add(flight)
            with flight:
                found = await asyncio.shield(flight.found)
                body = found.entry.body
                if found.shared and found.entry.answer.fits(asked.headers) and body.whole and not body.broken:
                    return await self._send(request, asked, attrs.evolve(found, label="HIT"))
                joinable = found.shared
        with self._launch(asked, kept, joinable=joinable) as flight:
            return await self._send(request, asked, await asyncio.shield(flight.found))

    def _under_way(self, key: Key, tried: set[_Flight]) -> _Flight | None:
        return next((one for one in self._flights.get(key, ()) if one.joinable and one not in tried), None)

    async def _renew(self, flight: _Flight) -> None:
        """See a flight to its end that nobody waits for."""
        with flight, suppress(Refusal, Broken):
            found = await asyncio.shield(flight.found)
            with found.entry.body.reader() as reader:
                while found.shared and await reader.read(_WINDOW):
                    pass

    def _launch(self, asked: _Asked, kept: Entry | None, *, joinable: bool) -> _Flight:
        flight = _Flight(joinable=joinable)
        self._flights.setdefault(asked.key, []).append(flight)
        flight.task = self._spawn(self._fly(flight, asked, kept))
        return flight

    async def _fly(self, flight: _Flight, asked: _Asked, kept: Entry | None) -> None:
        try:
            await self._fetch(flight, asked, kept)
        except Exception as error:
            if not flight.found.done():
                self._fail(flight, asked, kept, error)
            elif not isinstance(error, _ORIGIN_FAILURES):
                _logger.exception("a fetch failed")
        finally:
            flight.found.cancel()
            flights = self._flights.get(asked.key, [])
            if flight in flights:
                flights.remove(flight)
            if not flights:
                self._flights.pop(asked.key, None)

    def _fail(self, flight: _Flight, asked: _Asked, kept: Entry | None, error: Exception) -> None:
        if kept is not None and kept.answer.is_tolerable(time.monotonic(), asked.ttl, "stale-if-error"):
            flight.found.set_result(_Found(kept, "STALE", True))
        else:
            flight.found.set_exception(as_refusal(error) if isinstance(error, _ORIGIN_FAILURES) else error)
            flight.found.exception()  # whoever waits has it; asyncio need not report it a second time

    async def _fetch(self, flight: _Flight, asked: _Asked, kept: Entry | None) -> None:
        began = time.monotonic()
        url = origin_url(asked.settings["origin"], asked.key[1])
        asking = request_headers(asked.headers, asked.client, cached=True)
        asking.update(kept.answer.validators() if kept else {})
        async with self._origins.request(asked.method, url, asking) as response:
            now, headers = time.monotonic(), end_to_end(response.headers)
            born = now - initial_age(headers, datetime.now(UTC), now - began)
            if kept is not None and response.status == 304:
                flight.found.set_result(self._confirmed(flight, asked, kept, headers, born))
            elif (
                kept is not None
                and response.status in _FAILED
                and kept.answer.is_tolerable(now, asked.ttl, "stale-if-error")
            ):
                flight.found.set_result(_Found(kept, "STALE", True))
            else:
                if kept is not None and response.status < 500:
                    self._shelf.remove(asked.key, kept)
                await self._receive(flight, asked, answer(response.status, headers, asked.headers, born), response)

    def _confirmed(self, flight: _Flight, asked: _Asked, kept: Entry, headers: Headers, born: float) -> _Found:
        entry = Entry(refreshed(kept.answer, headers, asked.headers, born), kept.body)
        self._shelf.remove(asked.key, kept)
        if flight.keep and entry.answer.may_be_kept(asked.headers, asked.ttl):
            self._shelf.put(asked.key, entry)
        return _Found(entry, "REVALIDATED", entry.answer.is_fresh(time.monotonic(), asked.ttl))

    async def _receive(self, flight: _Flight, asked: _Asked, told: Answer, response: aiohttp.ClientResponse) -> None:
        storable = asked.may_be_shared and told.may_be_kept(asked.headers, asked.ttl)
        storable = storable and (response.content_length or 0) <= _LARGEST
        flight.goes_on = storable and response.content_length is not None
        body = Body(_LARGEST if storable else _WINDOW, self._directory)
        entry = Entry(told, body)
        flight.found.set_result(_Found(entry, "MISS", storable and told.is_fresh(time.monotonic(), asked.ttl)))
        try:
            async for chunk in response.content.iter_chunked(2**16):
                await body.append(chunk)
            if asked.method == "GET":
                told.headers["Content-Length"] = str(body.size)
            body.end(complete=True)
            if storable and flight.keep and body.whole:
                self._shelf.put(asked.key, entry)
        finally:
            if not body.complete:
                body.end(complete=False)

    # --- what is sent --------------------------------------------------------------------------------------------

    async def _send(self, request: web.BaseRequest, asked: _Asked, found: _Found) -> web.StreamResponse:
        status, headers, start, length = _selected(request, found)
        left = 0 if request.method == "HEAD" else sys.maxsize if length is None else length
        body, sent = found.entry.body, 0
        try:
            with body.reader(start) as reader:
                if left <= min(_AT_ONCE, body.size - start):
                    chunk = await reader.read(left) if left else b""
                    sent = len(chunk)
                    return web.Response(status=status, headers=headers, body=chunk)
                response = web.StreamResponse(status=status, headers=headers)
                await response.prepare(request)
                while left and (chunk := await reader.read(left)):
                    await response.write(chunk)
                    sent, left = sent + len(chunk), left - len(chunk)
                await response.write_eof()
        except (Broken, ConnectionError):
            _abort(request)
        finally:
            self._traffic.count(asked.key[0], hit=found.label != "MISS", size=sent)
        return response

    # --- what is passed on ---------------------------------------------------------------------------------------

    async def _pass(self, request: web.BaseRequest, settings: Data, target: str) -> web.StreamResponse:
        """Carry a request to the origin and its answer back, both as they come, and keep nothing of it."""
        url, id, sent = origin_url(settings["origin"], target), settings["id"], 0
        asking = request_headers(request.headers, request.remote, cached=False)
        body = request.content if request.body_exists else None
        response: web.StreamResponse | None = None
        try:
            async with self._origins.request(request.method, url, asking, body) as answered:
                if request.method not in _SAFE and answered.status < 400:
                    self._shelf.clear((id, target))
                    self._detach((id, target))
                headers = end_to_end(answered.headers, _NEVER_SENT)
                headers["X-Cache"] = "MISS"
                headers["Via"] = ", ".join((*answered.headers.getall("Via", ()), VIA))
                response = web.StreamResponse(status=answered.status, headers=headers)
                await response.prepare(request)
                async for chunk in answered.content.iter_chunked(2**16):
                    await response.write(chunk)
                    sent += len(chunk)
                await response.write_eof()
        except _ORIGIN_FAILURES as error:
            if response is None or not response.prepared:
                raise as_refusal(error) from error
            _abort(request)
        self._traffic.count(id, hit=False, size=sent)
        return response


def _addressed(request: web.BaseRequest) -> tuple[str, str]:
    """Return which distribution a request is for, and the path and query in it, as they came."""
    name, path, query = (
        host_name(request.headers.get("Host", "")),
        request.rel_url.raw_path,
        request.rel_url.raw_query_string,
    )
    if is_edge(name):
        id = id_of_edge(name)
    else:
        id, _, path = path.removeprefix("/edge").removeprefix("/").partition("/")
        path = "/" + path
    return id, check_target(f"{path}?{query}" if query else path)


def _is_another(before: _Known, now: _Known, told: int) -> bool:
    """Say whether nothing that was kept is to be trusted: the origin is another, or purges were missed."""
    origins = [known.settings["origin"] if known.settings else None for known in (before, now)]
    return origins[0] != origins[1] or before.generation < now.generation - told


def _check(request: web.BaseRequest, settings: Data) -> None:
    """Refuse what a distribution does not take."""
    allowed = [method.upper() for method in settings["allowed_methods"]]
    if not settings["enabled"]:
        raise Refusal(403, "CDN_DISTRIBUTION_DISABLED", "this distribution is disabled")
    if settings["https_only"] and request.headers.get("X-Forwarded-Proto", "").lower() != "https":
        raise Refusal(403, "CDN_HTTPS_ONLY", "this distribution is for https only", hint=_FOR_HTTPS)
    if request.method not in allowed:
        told = {"Allow": ", ".join(allowed)}
        raise Refusal(405, "METHOD_NOT_ALLOWED", "this distribution does not take this method", headers=told)
    if request.headers.get("Upgrade", "").lower() == "websocket":
        raise Refusal(
            501, "NOT_SUPPORTED", "the edge carries no WebSockets", hint="connect to the origin", retryable=False
        )
    if loops(request.headers):
        raise Refusal(508, "CDN_LOOP", "the request has come through this edge before", retryable=False)


def _selected(request: web.BaseRequest, found: _Found) -> tuple[int, CIMultiDict[str], int, int | None]:
    """Return what is sent of an entry: status, headers, where in the body it begins, and its length, if known."""
    told, headers = found.entry.answer, found.entry.answer.headers.copy()
    for name in _NEVER_SENT:
        headers.popall(name, None)
    size = _content_length(headers)
    status, start, length = told.status, 0, size
    if told.status == 200:
        etag, modified = headers.get("ETag"), http_date(headers.get("Last-Modified"))
        chosen = select(request.method, request.headers, etag=etag, modified=modified, size=size)
        status, start, length = chosen.status, chosen.start, chosen.length
        headers.update(chosen.headers)
    _describe(headers, status, length)
    headers["Age"] = str(max(0, int(time.monotonic() - told.born)))
    headers["X-Cache"] = found.label
    headers["Via"] = ", ".join((*told.headers.getall("Via", ()), VIA))
    return status, headers, start, length


def _content_length(headers: Headers) -> int | None:
    return int(headers["Content-Length"]) if "Content-Length" in headers else None


def _describe(headers: CIMultiDict[str], status: int, length: int | None) -> None:
    """Make the headers say what is sent of the body."""
    if status in (204, 304, 412, 416):
        for name in ("Content-Encoding", "Content-Length", "Content-Type"):
            headers.popall(name, None)
    if length is not None and status not in (204, 304):
        headers["Content-Length"] = str(length)


def _abort(request: web.BaseRequest) -> None:
    """End a connection on which an answer stays incomplete, so that nobody takes it for a whole one."""
    if request.transport is not None:
        request.transport.abort()
