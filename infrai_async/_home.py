"""What a pool has in one event loop: the session, the calls that run, and their timers."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from ssl import SSLContext
from typing import Final

import aiohttp
import attrs
from yarl import URL

from infrai_async._answer import Broken
from infrai_async._config import Secret
from infrai_async._connect import Connector, Sighting
from infrai_async._flow import Closed, Expired
from infrai_async._reporter import Reporter
from infrai_async._throttle import Gate, Pace
from infrai_async.errors import TimeoutError, TransportError

_LAST_WORDS: Final = 1.0  # seconds for cancelled calls to end
_MOMENT: Final = 0.05  # seconds
_NEVER: Final = float("inf")


@attrs.define(eq=False, kw_only=True)
class Ticket(Sighting):
    """One call while it runs: who runs it, until when, and what it waits for."""

    task: asyncio.Task[object]
    cancelling: int
    deadline: float
    begun: float
    waits: str = ""
    sending: bool = False
    started_at: float = 0.0
    sent_at: float = 0.0
    attempts: int = 0
    retries: int = 0
    ended_by: str = ""
    key: Secret | None = None
    keys_asked: int = 0
    reporter: Reporter | None = None

    def end(self, why: str) -> None:
        """Cancel the call for a reason of the pool's own."""
        if not self.ended_by:
            self.ended_by = why
            self.task.cancel()

    def interrupted(self) -> Broken | Closed | Expired | None:
        """Say what a cancellation means: the pool's own reason, or ``None`` for somebody else's."""
        if not self.ended_by or self.task.uncancel() > self.cancelling:
            return None
        if not self.sending:
            return Closed() if self.ended_by == "closed" else Expired(self.waits)
        if self.ended_by == "closed":
            return self.broken(TransportError("the client was closed before the answer came"))
        return self.broken(TimeoutError("the call's time ran out before the answer came"))

    def broken(self, error: TransportError, *, not_sent: bool = False) -> Broken:
        """Describe an attempt that got no complete answer."""
        sent = self.connected and not not_sent
        return Broken(error, sent, self.started_at, time.monotonic() - self.sent_at, self.sent_at - self.begun)


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
        self._keeper = None if self.borrowed else _keep(self.session)
        if self._keeper is not None:
            # Its first step makes the loop know it, so that ``shutdown_asyncgens`` (``asyncio.run`` calls it) closes
            # the session of a client that nobody closed. A client that is dropped while its loop runs is closed by
            # the finalizer, which also keeps the session from being collected together with it, and complaining.
            step(self._keeper.__anext__())
            weakref.finalize(self, _let_go, loop, self.session, self._keeper).atexit = False

    # --- deadlines: one timer serves all calls ---

    def enter(self, ticket: Ticket) -> None:
        """Watch over a call."""
        self.calls.add(ticket)
        if ticket.deadline < self._next_deadline:
            self._arm(ticket.deadline)

    def leave(self, ticket: Ticket) -> None:
        """Let a call go."""
        self.calls.discard(ticket)
        if self._closing is not None and not self.calls:
            self._wake_closing()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_deadline = deadline
        weakly: weakref.ref[Home] = weakref.ref(self)  # a timer must not keep the session of a dropped client
        self._timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), _expire, weakly)

    def expire(self) -> None:
        """End the calls whose time is up."""
        now = time.monotonic()
        self._timer, self._next_deadline = None, _NEVER
        for ticket in self.calls:
            if ticket.deadline <= now:
                ticket.end("expired")
        later = min((ticket.deadline for ticket in self.calls if ticket.deadline > now), default=_NEVER)
        if later < _NEVER:
            self._arm(later)

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
                self.loop.call_later(delay, self._let_start)
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


def _expire(home: weakref.ref[Home]) -> None:
    alive = home()
    if alive is not None:
        alive.expire()


def _new_session(proxy: str | URL | None, context: SSLContext | None) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(connector=Connector(context), cookie_jar=aiohttp.DummyCookieJar(), proxy=proxy)
    # aiohttp would send GET, PUT and DELETE again on a reused connection that broke, unseen by the attempts that we
    # report and by the rules of what may be sent again. Its own test client switches that off the same way.
    session._retry_connection = False
    return session


def step(awaitable: Awaitable[object]) -> None:
    """Take the one step of an awaitable that does not suspend."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().__next__()


async def _keep(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await session.close()
