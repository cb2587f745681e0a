"""What a pool has in one event loop: the session, the calls that run, and their timers."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from ssl import SSLContext
from typing import Final

import aiohttp
from yarl import URL

from infrai_async._connect import ReportedRequest, make_connector
from infrai_async._figures import Figures
from infrai_async._throttle import Gate, Pace
from infrai_async._ticket import Ticket

_LAST_WORDS: Final = 1.0  # seconds for cancelled calls to end
_MOMENT: Final = 0.05  # seconds
_NEVER: Final = float("inf")


class Home:
    """One loop's part of a pool; everything here happens in that loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        gate: Gate,
        pace: Pace,
        borrowed: aiohttp.ClientSession | None,
        proxy: str | URL | None,
        context: SSLContext | None,
    ) -> None:
        self.loop = loop
        self.calls: set[Ticket] = set()
        self.figures = Figures()
        self.key_lock = asyncio.Lock()
        self.borrowed = borrowed is not None
        self.session = borrowed or _new_session(proxy, context)
        self._gate = gate
        self._pace = pace
        self._starters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._next_deadline = _NEVER
        self._closing: asyncio.Task[None] | None = None
        self._close_by = _NEVER
        self._stir: asyncio.Future[None] | None = None
        self.over = False  # its own session is closed
        self._keeper = None if self.borrowed else _keep(self.session, weakref.ref(self))
        if self._keeper is not None:
            # Its first step makes the loop know it, so that ``shutdown_asyncgens`` (``asyncio.run`` calls it) closes
            # the session of a client that nobody closed. A client that is dropped while its loop runs is closed by
            # the finalizer, which also keeps the session from being collected together with it, and complaining.
            step(self._keeper.__anext__())
            weakref.finalize(self, _let_go, loop, self.session, self._keeper).atexit = False

    # --- deadlines: one timer serves all calls ---

    def enter(self, ticket: Ticket) -> None:
        """Watch over a call, which the current task runs."""
        task = asyncio.current_task(self.loop)
        assert task is not None  # noqa: S101 - a call is awaited
        ticket.task, ticket.cancelling = task, task.cancelling()
        ticket.begun = time.monotonic()
        self.calls.add(ticket)
        self.figures.calls += 1
        if ticket.deadline < self._next_deadline:
            self._arm(ticket.deadline)

    def leave(self, ticket: Ticket, *, done: bool) -> None:
        """Let a call go, and count what it came to."""
        self.calls.discard(ticket)
        figures = self.figures
        if done:
            figures.succeeded += 1
        else:
            figures.failed += 1
        figures.attempts += ticket.attempts
        figures.retries += ticket.retries
        figures.connections_opened += ticket.opened
        figures.connections_reused += ticket.reused
        for price in ticket.prices:
            figures.spend(price)
        if self._closing is not None and not self.calls:
            self._wake_closing()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_deadline = deadline
        self._timer = self._later(deadline - time.monotonic(), self._expire)

    def _later(self, delay: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        # A timer must not keep the session of a dropped client.
        return self.loop.call_later(max(0.0, delay), _if_alive, weakref.WeakMethod(act))

    def _expire(self) -> None:
        now = time.monotonic()
        self._timer, self._next_deadline = None, _NEVER
        for ticket in self.calls:
            if ticket.deadline <= now:
                ticket.end("expired")
        later = min((ticket.deadline for ticket in self.calls if ticket.deadline > now), default=_NEVER)
        if later < _NEVER:
            self._arm(later)

    def refuse_late(self, closer: Ticket) -> None:
        """End the calls that wait, but for the one that closed the gate, if their time is up before it opens."""
        for ticket in self.calls:
            if not ticket.sending and ticket.deadline < self._gate.opens_at and ticket is not closer:
                ticket.opens_at = self._gate.opens_at
                ticket.end("refused")

    # --- gate and pace: one timer lets the waiters start in the order in which they came ---

    async def wait_to_start(self, *, again: bool) -> None:
        """Wait for the gate and for one's turn; ``again`` takes whose turn the gate has cut off to the front."""
        waiter = self.loop.create_future()
        if again:
            self._starters.appendleft(waiter)
        else:
            self._starters.append(waiter)
        if len(self._starters) == 1:
            self._let_start()
        await waiter

    def _let_start(self) -> None:
        starters = self._starters
        while starters:
            now = time.monotonic()
            delay = max(self._gate.opens_at, self._pace.next_start) - now
            if delay > 0:
                self._later(delay, self._let_start)
                return
            waiter = starters.popleft()
            if not waiter.done():
                self._pace.start(now, len(starters))
                waiter.set_result(None)

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
            for ticket in tuple(self.calls):
                ticket.end("closed")
            if self.calls:
                await self._wait(_LAST_WORDS)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._keeper is not None:
                await self.session.close()
                with contextlib.suppress(RuntimeError):  # the loop itself may be ending it at this moment
                    await self._keeper.aclose()

    async def _wait(self, seconds: float) -> None:
        self._stir = self.loop.create_future()
        await asyncio.wait([self._stir], timeout=seconds)

    def _wake_closing(self) -> None:
        if self._stir is not None and not self._stir.done():
            self._stir.set_result(None)

    def abandon(self) -> None:
        """Forget the session of a loop that was closed without ending its asynchronous generators."""
        if not self.borrowed:
            step(self.session.close())


def _let_go(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession, keeper: AsyncGenerator[None]) -> None:
    """Close the session of a dropped client a moment later: a loop that ends until then does so itself, and waits."""
    if session.closed:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(loop.call_later, _MOMENT, _finish, session, keeper)


def _finish(session: aiohttp.ClientSession, keeper: AsyncGenerator[None]) -> None:
    # Not by a task: when the loop is about to end, nobody would wait for it.
    step(session.close())
    with contextlib.suppress(RuntimeError):  # the loop itself may be ending it at this moment
        step(keeper.aclose())


def _if_alive(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    alive = method()
    if alive is not None:
        alive()


def _new_session(proxy: str | URL | None, context: SSLContext | None) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=make_connector(context),
        request_class=ReportedRequest,
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
    )
    # aiohttp would send GET, PUT and DELETE again on a reused connection that broke, unseen by the attempts that we
    # report and by the rules of what may be sent again. Its own test client switches that off the same way.
    session._retry_connection = False
    return session


def step(awaitable: Awaitable[object]) -> None:
    """Take the one step of an awaitable that does not suspend."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().__next__()


async def _keep(session: aiohttp.ClientSession, weakly: weakref.ref[Home]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        if (home := weakly()) is not None:
            home.over = True
        await session.close()
