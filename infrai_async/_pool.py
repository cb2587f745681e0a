"""The session pool: the only place that does I/O for a call.

A pool belongs to one client and serves any number of event loops, one after another or at once: each loop gets a
session of its own (``_Home``), while places, gate, quota and figures are the client's. It knows nothing of
capabilities; it drives a flow and tells it what came of each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import logging
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from decimal import Decimal
from ssl import SSLContext
from typing import Final, TypeVar, cast

import aiohttp
import attrs
from aiohttp import hdrs
from multidict import CIMultiDict, istr
from yarl import URL

from infrai_async._answer import LARGEST_ANSWER, Answer, Broken
from infrai_async._config import Secret, check_api_key, credentials_file, find_api_key
from infrai_async._connect import CONNECT_SECONDS, Connector, Sighting, as_transport_error, environment_proxy
from infrai_async._flow import Closed, Expired, Flow, Hold, Learned, Pause, Refused, Renew, Result, Send
from infrai_async._places import Places
from infrai_async._request import Request
from infrai_async._throttle import Gate, RetryQuota
from infrai_async.errors import ClientClosedError, ConfigurationError, TimeoutError, TransportError

T = TypeVar("T")
KeySource = str | Callable[[], str | Awaitable[str]] | None

_LARGEST_INLINE: Final = 2**20  # bytes; aiohttp warns of larger ones that are passed as bytes
_SHORTEST_SECRET: Final = 8
_LAST_WORDS: Final = 1.0  # seconds for cancelled calls to end
_IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_JSON: Final = "application/json"
_log: Final = logging.getLogger("infrai_async")
_pools: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()
_left_behind: Final[list[object]] = []


@attrs.frozen(kw_only=True)
class Stats:
    """What a pool has done so far.

    Attributes:
        calls: calls begun. ``succeeded`` and ``failed`` are those that have ended.
        attempts: how often something was sent; ``retries`` those after a call's first.
        in_flight: calls that hold a place now; ``waiting`` those that wait for one.
        throttled_seconds: how long the service has kept the pool waiting (429, 503).
        connections_opened: connections made; ``connections_reused`` attempts that needed none. Both stay zero for a
            borrowed session, whose connections are not ours to watch.
        cost_usd: the sum of what the answers said they cost.
    """

    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    attempts: int = 0
    retries: int = 0
    in_flight: int = 0
    waiting: int = 0
    throttled_seconds: float = 0.0
    connections_opened: int = 0
    connections_reused: int = 0
    cost_usd: Decimal = Decimal(0)


@attrs.define
class _Counters:
    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    attempts: int = 0
    retries: int = 0
    connections_opened: int = 0
    connections_reused: int = 0
    cost_usd: Decimal = Decimal(0)


@attrs.frozen(kw_only=True)
class PoolSettings:
    """What a pool needs to know; ``origin`` is the base URL without ``/v1``."""

    origin: str
    api_key: KeySource = attrs.field(repr=False)
    max_concurrency: int
    session: aiohttp.ClientSession | None = None
    proxy: str | URL | None = attrs.field(default=None, repr=False)
    trust_env: bool = False
    ssl: SSLContext | None = None


class HeaderSet:
    """The headers of one view of a client, put together once for each key."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given
        self._key: str | None = None
        self._made: dict[tuple[bool, bool], CIMultiDict[str]] = {}

    def of(self, request: Request, key: str | None) -> CIMultiDict[str]:
        """Return the headers of one request; aiohttp copies them, so that most calls can share them."""
        if key is not None and key is not self._key:
            self._key, self._made = key, {}
        shape = (key is not None, request.body is not None)
        headers = self._made.get(shape)
        if headers is None:
            headers = self._made[shape] = self._build(key, with_body=shape[1])
        if request.idempotency_key is None:
            return headers
        headers = headers.copy()
        headers[_IDEMPOTENCY_KEY] = request.idempotency_key
        return headers

    def _build(self, key: str | None, *, with_body: bool) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict(self.given)
        for name in (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, _IDEMPOTENCY_KEY):
            headers.pop(name, None)  # ours, also where this request has none (DESIGN.md section 1)
        if key is not None:
            headers[hdrs.AUTHORIZATION] = Secret(f"Bearer {key}")
        if with_body:
            headers[hdrs.CONTENT_TYPE] = _JSON
        return headers


@attrs.define(eq=False)
class _Ticket(Sighting):
    """One call while it runs: who runs it, until when, and what it waits for."""

    task: asyncio.Task[object] = attrs.field(kw_only=True)
    cancelling: int = attrs.field(kw_only=True)
    deadline: float = attrs.field(kw_only=True)
    waits: str = ""
    sending: bool = False
    begun: float = 0.0
    started_at: float = 0.0
    sent_at: float = 0.0
    attempts: int = 0
    ended_by: str = ""
    key: Secret | None = None

    def end(self, why: str) -> None:
        """Cancel the call for a reason of the pool's own."""
        if not self.ended_by:
            self.ended_by = why
            self.task.cancel()

    def interrupted(self) -> Result:
        """Say what a cancellation means: the pool's own reason, or ``None`` for somebody else's."""
        if not self.ended_by or self.task.uncancel() > self.cancelling:
            return None
        if not self.sending:
            return Closed() if self.ended_by == "closed" else Expired(self.waits)
        if self.ended_by == "closed":
            return self.broken(TransportError("the client was closed before the answer came"))
        return self.broken(TimeoutError("the call's time ran out before the answer came"))

    def broken(self, error: TransportError, *, sent: bool | None = None) -> Broken:
        """Describe an attempt that got no complete answer."""
        left_us = self.connected if sent is None else sent
        return Broken(error, left_us, self.started_at, time.monotonic() - self.sent_at, self.sent_at - self.begun)


class _Home:
    """What a pool has in one event loop: the session and the calls that run."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: PoolSettings) -> None:
        self.loop = loop
        self.calls: set[_Ticket] = set()
        self.borrowed = settings.session is not None
        self.session = settings.session or _new_session(settings)
        self._timer: asyncio.TimerHandle | None = None
        self._next_deadline = float("inf")
        self._idle: asyncio.Future[None] | None = None
        self.key_lock = asyncio.Lock()
        self._keeper = None if self.borrowed else _keep(self.session)
        if self._keeper is not None:
            # Its first step makes the loop know it, so that ``shutdown_asyncgens`` (``asyncio.run`` calls it) closes
            # the session of a client that nobody closed.
            _step(self._keeper.__anext__())

    def enter(self, ticket: _Ticket) -> None:
        """Watch over a call: one timer serves the deadlines of all."""
        self.calls.add(ticket)
        if ticket.deadline < self._next_deadline:
            self._arm(ticket.deadline)

    def leave(self, ticket: _Ticket) -> None:
        """Let a call go."""
        self.calls.discard(ticket)
        if self._idle is not None and not self.calls and not self._idle.done():
            self._idle.set_result(None)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_deadline = deadline
        self._timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        self._timer, self._next_deadline = None, float("inf")
        for ticket in self.calls:
            if ticket.deadline <= now:
                ticket.end("expired")
        later = min((ticket.deadline for ticket in self.calls if ticket.deadline > now), default=float("inf"))
        if later < float("inf"):
            self._arm(later)

    async def close(self, grace: float) -> None:
        """Give running calls ``grace`` seconds, end the rest, and close the session if it is ours."""
        await self._drain(grace)
        for ticket in tuple(self.calls):
            ticket.end("closed")
        await self._drain(_LAST_WORDS)
        if self._timer is not None:
            self._timer.cancel()
        if self._keeper is not None:
            await self._keeper.aclose()
            await self.session.close()

    def abandon(self) -> None:
        """Forget the session of a loop that was closed without ending its asynchronous generators."""
        if not self.borrowed:
            _step(self.session.close())

    async def _drain(self, seconds: float) -> None:
        if self.calls:
            self._idle = self.loop.create_future()
            await asyncio.wait([self._idle], timeout=seconds)
            self._idle = None


def _new_session(settings: PoolSettings) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=Connector(settings.ssl),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        proxy=settings.proxy or (environment_proxy(settings.origin) if settings.trust_env else None),
    )
    # aiohttp would send GET, PUT and DELETE again on a reused connection that broke, unseen by the attempts that we
    # report and by the rules of what may be sent again. Its own test client switches that off the same way.
    session._retry_connection = False
    return session


def _step(awaitable: Awaitable[object]) -> None:
    """Take the one step of an awaitable that does not suspend."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().__next__()


async def _keep(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await session.close()


class Pool:
    """Sends what flows ask for, within the limits of one client."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.learned = Learned()
        self.places = Places(settings.max_concurrency)
        self.gate = Gate()
        self.quota = RetryQuota()
        self.closed = False
        self._origin = URL(settings.origin, encoded=True)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._homes: dict[asyncio.AbstractEventLoop, _Home] = {}
        self._lender: asyncio.AbstractEventLoop | None = None
        self._key: Secret | None = None
        self._counters = _Counters()
        self._lock = threading.Lock()
        _pools.add(self)

    # --- a call ---

    async def run(self, flow: Flow[T], deadline: float, headers: HeaderSet, *, public: bool) -> T:
        """Drive a flow to its end; ``deadline`` is by ``time.monotonic``."""
        home = self._homes.get(asyncio.get_running_loop())
        if home is None or home.session.closed:
            home = self._open_home()
        task = cast("asyncio.Task[object]", asyncio.current_task())
        ticket = _Ticket(task=task, cancelling=task.cancelling(), deadline=deadline)
        home.enter(ticket)
        value: T | None = None
        done = False
        try:
            step = next(flow)
            while True:
                try:
                    if isinstance(step, Send):
                        result = await self._attempt(home, ticket, step.request, headers, public=public)
                    else:
                        result = await self._other(home, ticket, step)
                except asyncio.CancelledError:
                    result = ticket.interrupted()
                    if result is None:
                        raise
                ticket.sending = False
                step = flow.send(result)
        except StopIteration as stop:
            value, done = stop.value, True
            return stop.value  # type: ignore[no-any-return]
        finally:
            home.leave(ticket)
            self._account(ticket, value, done=done)

    async def _other(self, home: _Home, ticket: _Ticket, step: object) -> Result:
        match step:
            case Pause(seconds, capability, reason):
                if self.closed or not self.quota.take():
                    return False
                _log.info("%s: sending again in %.3f s after %s", capability, seconds, reason)
                ticket.waits = "between attempts"
                await asyncio.sleep(seconds)
                return True
            case Hold(seconds):
                now = time.monotonic()
                self.gate.close(now + seconds, now)
            case Renew():
                stale = ticket.key
                return callable(self.settings.api_key) and await self._find_key(home, stale=stale) != stale
        return None

    async def _attempt(
        self, home: _Home, ticket: _Ticket, request: Request, headers: HeaderSet, *, public: bool
    ) -> Result:
        ticket.begun = time.monotonic()
        if (delay := self.gate.opens_at - ticket.begun) > 0 and self.gate.opens_at > ticket.deadline:
            return Refused(delay)
        ticket.waits = "for a place in the pool"
        if not self.places.take_now() and not await self.places.take():
            return Closed()
        try:
            ticket.waits = "for the service's pause to end"
            while (delay := self.gate.opens_at - time.monotonic()) > 0:
                if self.gate.opens_at > ticket.deadline:
                    return Refused(delay)
                await asyncio.sleep(delay)
            key = ticket.key = None if public else self._key or await self._find_key(home, stale=None)
            ticket.waits = "for its answer"
            ticket.sending = True
            ticket.attempts += 1
            return await self._send(home, ticket, request, headers.of(request, key))
        finally:
            self.places.release()

    async def _send(self, home: _Home, ticket: _Ticket, request: Request, headers: CIMultiDict[str]) -> Answer | Broken:
        ticket.started_at, ticket.sent_at = time.time(), time.monotonic()
        ticket.watch(connected=home.borrowed)
        response: aiohttp.ClientResponse | None = None
        try:
            response = await home.session.request(
                request.method,
                self._url(request.target),
                data=_body(request.body),
                headers=headers,
                allow_redirects=False,
                raise_for_status=False,
                timeout=self._timeout,
            )
            body = await _read(response)
        except (aiohttp.ClientError, OSError) as error:
            if response is not None:
                response.close()
            transport, not_sent = as_transport_error(error)
            return ticket.broken(transport, sent=False if not_sent else None)
        except BaseException:
            if response is not None:
                response.close()
            raise
        if body is None:
            response.close()
        elif response.status >= 400:
            body = _without(ticket.key, body)
        return Answer(
            response.status,
            response.headers,
            body or b"",
            started_at=ticket.started_at,
            seconds=time.monotonic() - ticket.sent_at,
            waited=ticket.sent_at - ticket.begun,
            oversized=body is None,
        )

    def _url(self, target: str) -> URL:
        if "?" in target:
            return URL(f"{self.settings.origin}{target}", encoded=True)
        return self._origin.with_path(self._origin.raw_path.rstrip("/") + target, encoded=True)

    def _account(self, ticket: _Ticket, value: object, *, done: bool) -> None:
        cost = getattr(getattr(value, "metadata", None), "cost_usd", None)
        counters = self._counters
        with self._lock:
            counters.calls += 1
            counters.attempts += ticket.attempts
            counters.retries += max(0, ticket.attempts - 1)
            counters.connections_opened += ticket.opened
            counters.connections_reused += ticket.reused
            if done:
                counters.succeeded += 1
                self.quota.earn()
                if cost is not None:
                    counters.cost_usd += cost
            else:
                counters.failed += 1

    def stats(self) -> Stats:
        """Return the figures as they are now."""
        with self._lock:
            counted = attrs.asdict(self._counters)
        return Stats(
            **counted,
            in_flight=self.places.taken,
            waiting=self.places.waiting,
            throttled_seconds=self.gate.held_seconds,
        )

    # --- the key ---

    async def _find_key(self, home: _Home, *, stale: Secret | None) -> Secret:
        async with home.key_lock:
            if self._key is None or self._key == stale:
                self._key = await self._ask_for_key()
            return self._key

    async def _ask_for_key(self) -> Secret:
        source = self.settings.api_key
        if source is None:
            return find_api_key(os.environ, credentials_file())
        if isinstance(source, str):
            return check_api_key(source, "api_key")
        given = source()
        return check_api_key(await given if inspect.isawaitable(given) else given, "the api_key function")

    # --- loops ---

    def _open_home(self) -> _Home:
        loop = asyncio.get_running_loop()
        if self.closed:
            raise ClientClosedError("the client is closed")
        with self._lock:
            if self.settings.session is not None:
                self._check_borrowed(loop, self.settings.session)
            for other in [known for known in self._homes if known.is_closed()]:
                self._homes.pop(other).abandon()
            home = self._homes[loop] = _Home(loop, self.settings)
        return home

    def _check_borrowed(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
        if self._lender not in (None, loop):
            raise ConfigurationError("session belongs to another event loop: lend one of this loop, or pass none")
        if session.closed:
            raise ConfigurationError("session is closed")
        if session.auth is not None:
            raise ConfigurationError("session has credentials of its own (auth=), which exclude the API key's header")
        self._lender = loop

    async def close(self, grace: float) -> None:
        """Refuse new calls, give running ones ``grace`` seconds, and leave nothing behind in any loop."""
        self.closed = True
        self.places.close()
        with self._lock:
            homes, self._homes = self._homes, {}
        here = asyncio.get_running_loop()
        elsewhere = [
            asyncio.wrap_future(asyncio.run_coroutine_threadsafe(home.close(grace), loop))
            for loop, home in homes.items()
            if loop is not here and loop.is_running()
        ]
        if here in homes:
            await homes[here].close(grace)
        if elsewhere:  # a loop may stop meanwhile and never answer; it then ends its generators itself
            await asyncio.wait(elsewhere, timeout=grace + _LAST_WORDS)

    def after_fork(self) -> None:
        """Begin afresh in a forked child: what the parent has stays the parent's."""
        _left_behind.append((self._homes, self.places))  # kept alive: collecting them would close or warn
        self._homes, self._lock = {}, threading.Lock()
        self.places = Places(self.settings.max_concurrency)


def _without(key: str | None, body: bytes) -> bytes:
    """Mask the key where a service repeats it in its refusal; one too short to be a secret stays."""
    return body if key is None or len(key) < _SHORTEST_SECRET else body.replace(key.encode(), b"***")


def _body(body: bytes | None) -> bytes | io.BytesIO | None:
    return io.BytesIO(body) if body is not None and len(body) > _LARGEST_INLINE else body


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, or ``None`` when it is larger than any answer of this API."""
    content = response.content
    if content.is_eof():
        return content.read_nowait()
    chunks, size = [], 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > LARGEST_ANSWER:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _after_fork() -> None:
    for pool in tuple(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
