"""The session pool: the only place that does I/O for a call.

A pool belongs to one client and serves any number of event loops, one after another or at once: each loop gets a
session of its own (``_home``), while places, gate, quota and figures are the client's. It knows nothing of
capabilities; it drives a flow and tells it what came of each step.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import io
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import aiohttp
import attrs
from yarl import URL

from infrai_async._answer import LARGEST_ANSWER
from infrai_async._config import Secret, check_api_key, credentials_file, find_api_key
from infrai_async._connect import CONNECT_SECONDS, as_transport_error, environment_proxy
from infrai_async._figures import Figures, Stats
from infrai_async._flow import Closed, Flow, Hold, Learned, Pause, Refused, Renew, Result
from infrai_async._home import Home
from infrai_async._places import Places
from infrai_async._request import Request
from infrai_async._throttle import Gate, Pace, RetryQuota
from infrai_async.errors import ConfigurationError, InfraiError

if TYPE_CHECKING:
    from infrai_async._reporter import Listener, Reporter
    from infrai_async._ticket import Ticket

T = TypeVar("T")
KeySource: TypeAlias = str | Callable[[], str | Awaitable[str]] | None

_LARGEST_INLINE: Final = 2**20  # bytes; aiohttp warns of larger ones that are passed as bytes
_ELSEWHERE: Final = 2.0  # seconds beyond the grace for another loop to close its part
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)  # the call's own timer does the rest
_log: Final = logging.getLogger("infrai_async")
_pools: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()
_left_behind: Final[list[object]] = []


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
    listener: Listener | None = attrs.field(default=None, repr=False)


class Pool:
    """Sends what flows ask for, within the limits of one client."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.listener = settings.listener
        self.learned = Learned()
        self.closed = False
        self._gate = Gate()
        self._pace = Pace()
        self._quota = RetryQuota()
        self._places = Places(settings.max_concurrency)
        self._origin = URL(settings.origin, encoded=True)
        self._prefix = self._origin.raw_path.rstrip("/")
        self._homes: dict[asyncio.AbstractEventLoop, Home] = {}
        self._lender: asyncio.AbstractEventLoop | None = None
        self._key: Secret | None = None
        self._keys_asked = 0
        self._let_through = 0  # successes so far; what the pace is told
        self._figures = Figures()  # of loops that are gone
        self._lock = threading.Lock()
        _pools.add(self)

    # --- a call ---

    async def run_reported(self, ticket: Ticket, flow: Flow[T], reporter: Reporter) -> T:
        """Drive a flow to its end, which is reported however it comes."""
        with reporter:
            return await self.run(ticket, flow)

    async def run(self, ticket: Ticket, flow: Flow[T]) -> T:
        """Drive the flow of a call to its end."""
        step = next(flow)
        if ticket.reporter is not None:
            ticket.reporter.started()
        home = None if self.closed else self._homes.get(asyncio.get_running_loop())
        if home is None or home.over:
            home = self._settle(flow)
        home.enter(ticket)
        done = False
        try:
            while True:
                try:
                    if isinstance(step, Request):
                        result = await self._attempt(home, ticket, step)
                    else:
                        result = await self._do(home, ticket, step)
                except asyncio.CancelledError:
                    result = ticket.interrupted()
                    if result is None:
                        raise
                except InfraiError as error:
                    step = flow.throw(error)
                    continue
                ticket.sending = False
                step = flow.send(result)
        except StopIteration as stop:
            done = True
            return stop.value  # type: ignore[no-any-return]
        finally:
            home.leave(ticket, done=done)
            if done:
                self._let_through += 1  # no lock: a success that is lost between two threads does no harm to either
                self._quota.earn()

    async def _do(self, home: Home, ticket: Ticket, step: Pause | Hold | Renew) -> Result:
        match step:
            case Hold(seconds):
                now = time.monotonic()
                with self._lock:
                    self._gate.close(now + seconds, now)
                    self._pace.slow_down(now, now + seconds, self._let_through, ticket.sent_at)
                self._refuse_late(home, ticket)
                if ticket.reporter is not None:
                    ticket.reporter.throttled(seconds)
                return None
            case Renew():
                ticket.waits = "for another API key"
                stale = ticket.key
                return callable(self.settings.api_key) and await self._find_key(home, ticket) != stale
            case Pause(seconds, capability, reason):
                with self._lock:
                    if self.closed or not self._quota.take():
                        return False
                _log.info("%s: sending again in %.3f s after %s", capability, seconds, reason)
                if ticket.reporter is not None:
                    ticket.reporter.retrying(reason, seconds)
                ticket.waits = "between attempts"
                await asyncio.sleep(seconds)
                return True

    async def _attempt(self, home: Home, ticket: Ticket, request: Request) -> Result:
        places, pace = self._places, self._pace
        nothing_to_wait_for = not pace.limited and ticket.scopes is None and self._key is not None
        if not (nothing_to_wait_for and places.take_now()):
            refused = await self._admit(home, ticket)
            if refused is not None:
                return refused
        response: aiohttp.ClientResponse | None = None
        body: bytes | None = None
        try:
            if places.taken == 1:
                pace.begin(time.monotonic(), self._let_through)
            key = None if ticket.row.public else self._key
            ticket.keys_asked = self._keys_asked
            ticket.sends(key, again=request.again, connected=home.borrowed)
            if ticket.reporter is not None:
                waited = ticket.sent_at - ticket.begun
                ticket.reporter.sent(request.method, self.settings.origin, request.target, waited)
            response = await home.session.request(
                request.method,
                self._url(request.target),
                data=_body(request.body),
                headers=ticket.headers.of(request, key),
                allow_redirects=False,
                raise_for_status=False,
                timeout=_TIMEOUT,
            )
            content = response.content
            body = content.read_nowait() if content.is_eof() else await _read(content)
            return ticket.answered(response, body)
        except (aiohttp.ClientError, OSError) as error:
            transport, not_sent = as_transport_error(error)
            return ticket.broken(transport, not_sent=not_sent)
        except RuntimeError:
            if not home.session.closed:
                raise
            raise ConfigurationError("session was closed by its owner") from None
        finally:
            if body is None:
                ticket.abort()
                if response is not None:
                    response.close()
            places.release()

    async def _admit(self, home: Home, ticket: Ticket) -> Refused | Closed | None:
        """Wait for a place, for one's turn and for the key; ``None`` with a place taken, else why there is none."""
        places = self._places
        if ticket.scopes is not None:
            ticket.scopes.check(time.monotonic())
        if self._opens_too_late(ticket):
            return self._refused()
        ticket.waits = "for a place in the pool"
        if not places.take_now() and not await places.take():
            return Closed()
        admitted = False
        try:
            if self._pace.limited and not await self._turn(home, ticket):
                return self._refused()
            if self._key is None and not ticket.row.public:
                ticket.waits = "for the API key"
                await self._find_key(home, ticket)
            if ticket.scopes is not None:
                ticket.scopes.check(time.monotonic())
            admitted = True
        finally:
            if not admitted:
                places.release()
        return None

    def _refused(self) -> Refused:
        return Refused(self._gate.opens_at - time.monotonic())

    def _opens_too_late(self, ticket: Ticket) -> bool:
        return self._gate.opens_at > ticket.deadline and self._gate.opens_at > time.monotonic()

    def _refuse_late(self, home: Home, closer: Ticket) -> None:
        home.refuse_late(closer)
        for other in tuple(self._homes.values()):
            if other is not home:
                with contextlib.suppress(RuntimeError):  # that loop is closed
                    other.loop.call_soon_threadsafe(other.refuse_late, closer)

    async def _turn(self, home: Home, ticket: Ticket) -> bool:
        """Wait until the call may start; false when the gate opens after its time is up."""
        ticket.waits = "for the service's pause to end"
        again = False
        while not again or self._gate.opens_at > time.monotonic():  # it may be closed anew just then
            if self._opens_too_late(ticket):
                return False
            await home.wait_to_start(again=again)
            again = True
        return True

    def _url(self, target: str) -> URL:
        origin = self._origin
        if "?" not in target:
            return origin.with_path(self._prefix + target, encoded=True)
        path, _, query = target.partition("?")
        return URL.build(
            scheme=origin.scheme,
            authority=origin.raw_authority,
            path=self._prefix + path,
            query_string=query,
            encoded=True,
        )

    # --- figures ---

    def stats(self) -> Stats:
        """Return the figures as they are now."""
        # Without the lock: a signal's handler may make a call in the middle of this, which would wait for it for ever.
        still_to_wait = max(0.0, self._gate.opens_at - time.monotonic())
        throttled = max(0.0, self._gate.held_seconds - still_to_wait)
        total = Figures()
        for part in (self._figures, *(home.figures for home in tuple(self._homes.values()))):
            total.add(part)
        return total.stats(in_flight=self._places.taken, waiting=self._places.waiting, throttled_seconds=throttled)

    # --- the key ---

    async def _find_key(self, home: Home, ticket: Ticket) -> Secret:
        """Return the key, asking for it at most once for all calls that miss it or whose key was refused."""
        async with home.key_lock:
            if self._key is None or ticket.keys_asked == self._keys_asked:
                self._key = await self._ask_for_key()
                self._keys_asked += 1
            return self._key

    async def _ask_for_key(self) -> Secret:
        source = self.settings.api_key
        if source is None:
            return find_api_key(os.environ, credentials_file())
        if isinstance(source, str):
            return check_api_key(source, "api_key")
        try:
            given = source()
            return check_api_key(await given if inspect.isawaitable(given) else given, "the api_key function")
        except ConfigurationError:
            raise
        except Exception as error:
            raise ConfigurationError(f"the api_key function failed ({type(error).__name__})") from error

    # --- loops ---

    def _settle(self, flow: Flow[Any]) -> Home:
        """Settle in the running loop, or end the flow."""
        try:
            home = self._home()
        except ConfigurationError as error:
            flow.throw(error)
            raise
        if home is None:
            flow.send(Closed())
            raise AssertionError("a flow ends when the client is closed")
        return home

    def _home(self) -> Home | None:
        if self.closed:
            return None  # before there need be a loop: the facade takes a call's one step without
        loop = asyncio.get_running_loop()
        with self._lock:
            if self.closed:
                return None
            session = self.settings.session
            if session is not None:
                self._check_borrowed(loop, session)
            for known in [known for known in self._homes if known is loop or known.is_closed()]:
                over = self._homes.pop(known)
                self._figures.add(over.figures)
                over.abandon()
            home = self._homes[loop] = Home(loop, self._gate, self._pace, session, self._proxy(), self.settings.ssl)
        return home

    def _proxy(self) -> str | URL | None:
        settings = self.settings
        return settings.proxy or (environment_proxy(settings.origin) if settings.trust_env else None)

    def _check_borrowed(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
        # aiohttp has no public way left to ask a session for its loop; without the attribute the first user's counts.
        owner = self._lender or getattr(session, "_loop", loop)
        if owner is not loop:
            raise ConfigurationError("session belongs to another event loop: lend one of this loop, or pass none")
        if session.closed:
            raise ConfigurationError("session is closed")
        if session.auth is not None:
            raise ConfigurationError("session has credentials of its own (auth=), which exclude the API key's header")
        self._lender = loop

    def refuse(self) -> None:
        """Refuse every call from now on, also those that wait for a place; callable from any thread."""
        with self._lock:
            self.closed = True
        self._places.close()

    async def close(self, grace: float) -> None:
        """Refuse new calls, give running ones ``grace`` seconds, and leave nothing behind in any loop."""
        self.refuse()
        with self._lock:
            homes = dict(self._homes)
        here = asyncio.get_running_loop()
        elsewhere = [_close_elsewhere(home, grace) for loop, home in homes.items() if loop is not here]
        if here in homes:
            await homes[here].close(grace)
        running = [asyncio.wrap_future(future) for future in elsewhere if future is not None]
        if running:  # a loop may stop meanwhile and never answer; it then ends its generators itself
            done, _ = await asyncio.wait(running, timeout=grace + _ELSEWHERE)
            for future in done:
                if not future.cancelled():
                    future.exception()  # asked for, so that nobody complains it was not

    def after_fork(self) -> None:
        """Begin afresh in a forked child: what the parent has stays the parent's."""
        _left_behind.append((self._homes, self._places))  # kept alive: collecting them would close or warn
        for home in self._homes.values():
            self._figures.add(home.figures)
        self._homes, self._lock, self._lender = {}, threading.Lock(), None
        self._places = Places(self.settings.max_concurrency)


def _close_elsewhere(home: Home, grace: float) -> concurrent.futures.Future[None] | None:
    """Close another loop's part there; if that loop does not run now, it does so when it runs again."""
    with contextlib.suppress(RuntimeError):  # it may be closed at any moment
        if home.loop.is_running():
            return asyncio.run_coroutine_threadsafe(home.close(grace), home.loop)
        if not home.loop.is_closed():
            home.loop.call_soon_threadsafe(home.begin_closing, grace)
            return None
    home.abandon()
    return None


def _body(body: bytes | None) -> bytes | io.BytesIO | None:
    return io.BytesIO(body) if body is not None and len(body) > _LARGEST_INLINE else body


async def _read(content: aiohttp.StreamReader) -> bytes | None:
    """Return the body, or ``None`` when it is larger than any answer of this API."""
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
