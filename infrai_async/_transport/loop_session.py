"""What a pool has in one event loop: the session, the calls that run, and their timers."""

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

from infrai_async._transport.call_state import CallState, Reason
from infrai_async._transport.connector import CONNECT_SECONDS, TracedRequest, make_connector
from infrai_async._transport.stats import Counters

if TYPE_CHECKING:
    from infrai_async._observability.reporter import Reporter
    from infrai_async._protocol.flow import Call

_CANCEL_SECONDS: Final = 1.0  # seconds for cancelled calls to end
_MOMENT: Final = 0.05  # seconds
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)  # the call's own timer does the rest
_NEVER: Final = float("inf")


class LoopSession:
    """One loop's part of a pool; everything here happens in that loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        borrowed: aiohttp.ClientSession | None,
        proxy: str | URL | None,
        context: SSLContext | None,
    ) -> None:
        self.loop = loop
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
        self.over = False  # its own session is closed
        self._guard = None if self.borrowed else _close_with_loop(self.http, weakref.ref(self))
        if self._guard is not None:
            # Its first step makes the loop know it, so that ``shutdown_asyncgens`` (``asyncio.run`` calls it) closes
            # the session of a client that nobody closed. A client that is dropped while its loop runs is closed by
            # the finalizer, which also keeps the session from being collected together with it, and complaining.
            run_one_step(self._guard.__anext__())
            weakref.finalize(self, _close_dropped, loop, self.http, self._guard).atexit = False

    # --- deadlines: one timer serves all calls ---

    def enter(self, call: Call[Any], reporter: Reporter | None) -> CallState:
        """Watch over a call, which the current task runs."""
        task: asyncio.Task[Any] = current_task(self.loop)  # type: ignore[assignment] # a call is awaited
        counters = self.counters
        counters.calls += 1
        state = CallState(call, counters, task, reporter)
        self.calls.add(state)
        if call.deadline < self._next_deadline:
            self._arm(call.deadline)
        return state

    def leave(self, state: CallState, succeeded: bool) -> None:
        """Let a call go, and count what it came to."""
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
        """Give running calls ``grace`` seconds, end the rest, and close the session if it is ours.

        Whoever asks again waits for the same end; a shorter grace shortens it.
        """
        await asyncio.shield(self.begin_closing(grace))

    def begin_closing(self, grace: float) -> asyncio.Task[None]:
        """Begin to close, or make haste with it."""
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
                with contextlib.suppress(RuntimeError):  # the loop itself may be ending it at this moment
                    await self._guard.aclose()

    async def _wait(self, seconds: float) -> None:
        self._changed = self.loop.create_future()
        await asyncio.wait([self._changed], timeout=seconds)

    def _wake_closing(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def end(self) -> None:
        """Note that its own session is closed, so that calls need another."""
        self.over = True

    def abandon(self) -> None:
        """Forget the session of a loop that was closed without ending its asynchronous generators."""
        if not self.borrowed:
            run_one_step(self.http.close())


def _close_dropped(
    loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession, guard: AsyncGenerator[None]
) -> None:
    """Close the session of a dropped client a moment later: a loop that ends until then does so itself, and waits."""
    if session.closed:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(loop.call_later, _MOMENT, _close_now, session, guard)


def _close_now(session: aiohttp.ClientSession, guard: AsyncGenerator[None]) -> None:
    # Not by a task: when the loop is about to end, nobody would wait for it.
    run_one_step(session.close())
    with contextlib.suppress(RuntimeError):  # the loop itself may be ending it at this moment
        run_one_step(guard.aclose())


def call_later(loop: asyncio.AbstractEventLoop, delay: float, act: Callable[[], None]) -> asyncio.TimerHandle:
    """Call a method later, unless its object is gone: a timer must not keep the session of a dropped client."""
    return loop.call_later(max(0.0, delay), _if_alive, weakref.WeakMethod(act))


def _if_alive(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    alive = method()
    if alive is not None:
        alive()


def _new_session(proxy: str | URL | None, context: SSLContext | None) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=make_connector(context),
        request_class=TracedRequest,
        cookie_jar=_NoCookies(),
        proxy=proxy,
        timeout=_TIMEOUT,
    )
    # aiohttp would send GET, PUT and DELETE again on a reused connection that broke, unseen by the attempts that we
    # report and by the rules of what may be sent again. Its own test client switches that off the same way.
    session._retry_connection = False
    return session


class _NoCookies(aiohttp.DummyCookieJar):
    """Keeps no cookies, and makes no new object each time to say so."""

    _none: Final[SimpleCookie] = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> SimpleCookie:
        """Return the cookies for a request."""
        return self._none


def sender_of(session: aiohttp.ClientSession, *, borrowed: bool) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return what sends a request by our rules, whatever those of a borrowed session are."""
    if borrowed:
        return functools.partial(session.request, raise_for_status=False, timeout=_TIMEOUT)
    # ``request`` wraps this coroutine for ``async with``, which costs more than it looks: 4 % of a request.
    return getattr(session, "_request", session.request)


def run_one_step(awaitable: Awaitable[object]) -> None:
    """Take the one step of an awaitable that does not suspend."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().__next__()


async def _close_with_loop(session: aiohttp.ClientSession, owner_ref: weakref.ref[LoopSession]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        if (owner := owner_ref()) is not None:
            owner.end()
        await session.close()
