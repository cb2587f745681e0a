"""The part of a pool that belongs to one event loop: the session, the running calls, and their timer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import weakref
from asyncio import current_task
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from http.cookies import SimpleCookie
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from infrai_async._event_loop import no_event_loop
from infrai_async._protocol.config import host_and_port
from infrai_async._transport.call_state import CallState, Reason
from infrai_async._transport.connector import CONNECT_SECONDS, LONGEST_FIELD, TracedRequest, make_connector
from infrai_async._transport.stats import Counters

if TYPE_CHECKING:
    from infrai_async._observability.reporter import Reporter
    from infrai_async._protocol.flow import Call

_CANCEL_SECONDS: Final = 1.0  # how long ``close`` waits for cancelled calls to end
_DROP_SECONDS: Final = 0.05  # the delay before the session of a dropped client is closed
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)  # the deadline's timer does the rest
_NEVER: Final = float("inf")


class LoopSession:
    """One event loop's part of a pool. All methods run in that loop, so they need no lock."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        borrowed: aiohttp.ClientSession | None,
        proxy: str | URL | None,
        context: SSLContext | None,
        address: str,
    ) -> None:
        self.loop = loop
        self.address = address if proxy is None else f"{address} through the proxy {host_and_port(str(proxy))}"
        self.calls: set[CallState] = set()
        self.counters = Counters()
        self.key_lock = asyncio.Lock()
        self.borrowed = borrowed is not None
        self.http = borrowed or _new_session(proxy, context)
        self.request = sender_of(self.http, borrowed=self.borrowed)
        self._timer: asyncio.TimerHandle | None = None
        self._next_deadline = _NEVER
        self._closing: asyncio.Task[None] | None = None
        self._close_by = _NEVER
        self._changed: asyncio.Future[None] | None = None
        self.over = False  # true once the session is closed, by ``close`` or by the end of the event loop
        self._guard = None if self.borrowed else _close_with_loop(self.http, weakref.ref(self))
        if self._guard is not None:
            # The first step registers the generator with the event loop, so that ``shutdown_asyncgens``, which
            # ``asyncio.run`` calls, closes the session of a client that was never closed. If the client is dropped
            # while its loop runs, the finalizer closes the session. The finalizer also keeps the session alive until
            # then: collected together with the client, aiohttp would warn about an unclosed session.
            run_one_step(self._guard.__anext__())
            weakref.finalize(self, _close_dropped, loop, self.http, self._guard).atexit = False

    # --- deadlines: a single timer for all calls ---

    def enter(self, call: Call[Any], reporter: Reporter | None) -> CallState:
        """Register a call that the current task runs, and arm the timer for its deadline.

        Raises:
            ConfigurationError: no task of this loop runs the call.
        """
        task = current_task(self.loop)
        if task is None:
            raise call.with_context(no_event_loop(), "not_sent", ())
        counters = self.counters
        counters.calls += 1
        state = CallState(call, counters, task, reporter)
        self.calls.add(state)
        if call.deadline < self._next_deadline:
            self._arm(call.deadline)
        return state

    def leave(self, state: CallState, succeeded: bool) -> None:
        """Deregister a call, and count its result."""
        self.calls.discard(state)
        if succeeded:
            self.counters.succeeded += 1
        else:
            self.counters.failed += 1
        if self._closing is not None and not self.calls:
            self._wake_closing()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_deadline = deadline
        self._timer = call_later(self.loop, deadline - time.monotonic(), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        self._timer, self._next_deadline = None, _NEVER
        for state in self.calls:
            if state.call.deadline <= now:
                state.end(Reason.EXPIRED)
        later = min((state.call.deadline for state in self.calls if state.call.deadline > now), default=_NEVER)
        if later < _NEVER:
            self._arm(later)

    # --- closing ---

    async def close(self, grace: float) -> None:
        """Give running calls ``grace`` seconds, end the others, and close the session unless it is borrowed.

        A second call waits for the same task; a shorter grace period shortens it.
        """
        await asyncio.shield(self.begin_closing(grace))

    def begin_closing(self, grace: float) -> asyncio.Task[None]:
        """Start to close, or shorten the grace period of a close that has started."""
        self._close_by = min(self._close_by, time.monotonic() + grace)
        if self._closing is None:
            self._closing = self.loop.create_task(self._close())
        self._wake_closing()
        return self._closing

    async def _close(self) -> None:
        try:
            while self.calls and (left := self._close_by - time.monotonic()) > 0:
                await self._wait(left)
            for state in tuple(self.calls):
                state.end(Reason.CLOSED)
            if self.calls:
                await self._wait(_CANCEL_SECONDS)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._guard is not None:
                await self.http.close()
                # The event loop may be closing the generator at the same moment (``shutdown_asyncgens``); a second
                # ``aclose`` then raises. Either of the two is enough, because the session is closed already.
                with contextlib.suppress(RuntimeError):
                    await self._guard.aclose()

    async def _wait(self, seconds: float) -> None:
        self._changed = self.loop.create_future()
        await asyncio.wait([self._changed], timeout=seconds)

    def _wake_closing(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def end(self) -> None:
        """Record that the session is closed, so that later calls open another one."""
        self.over = True

    def abandon(self) -> None:
        """Close the session of an event loop that was closed without ``shutdown_asyncgens``."""
        if not self.borrowed:
            run_one_step(self.http.close())


def _close_dropped(
    loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession, guard: AsyncGenerator[None]
) -> None:
    """Close the session of a dropped client, in its event loop and after a short delay.

    The garbage collector may run in any thread, so the work must be handed to the loop. The delay leaves the session
    to a loop that is about to end: ``shutdown_asyncgens`` closes it then and, unlike a callback, waits for the end.
    """
    if session.closed:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(loop.call_later, _DROP_SECONDS, _close_now, session, guard)


def _close_now(session: aiohttp.ClientSession, guard: AsyncGenerator[None]) -> None:
    # Not in a task: if the loop is about to end, it would not wait for the task.
    run_one_step(session.close())
    with contextlib.suppress(RuntimeError):  # the event loop may be closing the generator at the same moment
        run_one_step(guard.aclose())


def call_later(loop: asyncio.AbstractEventLoop, delay: float, act: Callable[[], None]) -> asyncio.TimerHandle:
    """Call a method after a delay unless its object is gone; the timer does not keep the object alive."""
    return loop.call_later(max(0.0, delay), _if_alive, weakref.WeakMethod(act))


def _if_alive(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    bound = method()
    if bound is not None:
        bound()


def _new_session(proxy: str | URL | None, context: SSLContext | None) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=make_connector(context),
        request_class=TracedRequest,
        cookie_jar=_NoCookies(),
        proxy=proxy,
        timeout=_TIMEOUT,
        max_line_size=LONGEST_FIELD,
        max_field_size=LONGEST_FIELD,
    )
    # aiohttp would resend GET, PUT and DELETE by itself when a reused connection breaks. Such a resend appears in no
    # attempt that we report and obeys none of our retry rules. aiohttp's own test client disables it the same way.
    session._retry_connection = False
    return session


class _NoCookies(aiohttp.DummyCookieJar):
    """A cookie jar that stores nothing and, unlike its base class, creates no object for each request."""

    _none: Final[SimpleCookie] = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> SimpleCookie:
        """Return no cookies."""
        return self._none


def sender_of(session: aiohttp.ClientSession, *, borrowed: bool) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return the function that sends a request; for a borrowed session it overrides settings that we rely on."""
    if borrowed:
        return functools.partial(session.request, raise_for_status=False, timeout=_TIMEOUT)
    # ``request`` wraps this coroutine for ``async with``, which takes 4 % of the time of a request.
    return getattr(session, "_request", session.request)


def run_one_step(awaitable: Awaitable[object]) -> None:
    """Run an awaitable that completes without suspending, in the current thread and without a task."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().__next__()


async def _close_with_loop(session: aiohttp.ClientSession, owner_ref: weakref.ref[LoopSession]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        if (owner := owner_ref()) is not None:
            owner.end()
        await session.close()
