"""The sessions of one client: one for each event loop that it is used in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from asyncio import get_running_loop
from collections.abc import Callable
from ssl import SSLContext
from typing import Final

import aiohttp
from yarl import URL

from infrai_async._transport.loop_session import LoopSession
from infrai_async._transport.stats import Counters
from infrai_async.errors import ConfigurationError

_ELSEWHERE: Final = 2.0  # seconds beyond the grace for another loop to close its part
_left_behind: Final[list[object]] = []


class LoopSessions:
    """Makes a session for a loop when a call first runs there, and closes them all.

    Args:
        borrowed: the caller's session, which then serves its own loop alone.
        proxy: asked for the proxy of each session that is made.
        context: the TLS context of those sessions.
    """

    def __init__(
        self,
        borrowed: aiohttp.ClientSession | None,
        proxy: Callable[[], str | URL | None],
        context: SSLContext | None,
    ) -> None:
        self.closed = False
        self._borrowed = borrowed
        self._proxy = proxy
        self._context = context
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopSession] = {}
        self._borrowed_loop: asyncio.AbstractEventLoop | None = None
        self._past_counters = Counters()  # of loops that are gone
        self._lock = threading.Lock()

    def here(self) -> LoopSession | None:
        """Return the running loop's session, if it has one that may be used."""
        if self.closed:
            return None  # looked at first, because the facade asks outside of any loop then
        try:
            session = self._by_loop[get_running_loop()]
        except KeyError:
            return None
        return None if session.over else session

    def open(self) -> LoopSession | None:
        """Open a session for the running loop, instead of one that is over; ``None`` once the client is closed.

        Raises:
            ConfigurationError: the borrowed session is not to be used here.
        """
        if self.closed:
            return None
        loop = get_running_loop()
        with self._lock:
            if self.closed:
                return None
            if self._borrowed is not None:
                self._check_borrowed(loop, self._borrowed)
            for known in [known for known in self._by_loop if known is loop or known.is_closed()]:
                over = self._by_loop.pop(known)
                self._past_counters.add(over.counters)
                over.abandon()
            session = self._by_loop[loop] = LoopSession(loop, self._borrowed, self._proxy(), self._context)
        return session

    def all(self) -> tuple[LoopSession, ...]:
        """Return the sessions of every loop."""
        return tuple(self._by_loop.copy().values())  # a copy, because another thread may make one

    def counters(self) -> Counters:
        """Return the sum of what all loops have counted."""
        total = Counters()
        for part in (self._past_counters, *(session.counters for session in self.all())):
            total.add(part)
        return total

    def succeeded(self) -> int:
        """Return how many calls went well so far."""
        count = self._past_counters.succeeded
        for session in self.all():
            count += session.counters.succeeded
        return count

    def _check_borrowed(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
        # aiohttp has no public way left to ask a session for its loop; without the attribute the first user's counts.
        owner = self._borrowed_loop or getattr(session, "_loop", loop)
        if owner is not loop:
            raise ConfigurationError("session belongs to another event loop: lend one of this loop, or pass none")
        if session.closed:
            raise ConfigurationError("session is closed")
        if session.auth is not None:
            raise ConfigurationError("session has credentials of its own (auth=), which exclude the API key's header")
        self._borrowed_loop = loop

    def refuse(self) -> None:
        """Make no more sessions, and give none to calls that begin; callable from any thread."""
        with self._lock:
            self.closed = True

    async def close(self, grace: float) -> None:
        """Give running calls ``grace`` seconds, and leave nothing behind in any loop."""
        self.refuse()
        with self._lock:
            by_loop = dict(self._by_loop)
        here = get_running_loop()
        elsewhere = [_close_elsewhere(session, grace) for loop, session in by_loop.items() if loop is not here]
        if here in by_loop:
            await by_loop[here].close(grace)
        running = [asyncio.wrap_future(future) for future in elsewhere if future is not None]
        if running:  # a loop may stop meanwhile and never answer; it then ends its generators itself
            done, _ = await asyncio.wait(running, timeout=grace + _ELSEWHERE)
            for future in done:
                if not future.cancelled():
                    future.exception()  # asked for, so that nobody complains it was not

    def after_fork(self) -> None:
        """Begin afresh in a forked child: what the parent has stays the parent's."""
        _left_behind.append(self._by_loop)  # kept alive: collecting them would close or warn
        for session in self._by_loop.values():
            self._past_counters.add(session.counters)
        self._by_loop, self._lock, self._borrowed_loop = {}, threading.Lock(), None


def _close_elsewhere(session: LoopSession, grace: float) -> concurrent.futures.Future[None] | None:
    """Close another loop's part there; if that loop does not run now, it does so when it runs again."""
    with contextlib.suppress(RuntimeError):  # it may be closed at any moment
        if session.loop.is_running():
            return asyncio.run_coroutine_threadsafe(session.close(grace), session.loop)
        if not session.loop.is_closed():
            session.loop.call_soon_threadsafe(session.begin_closing, grace)
            return None
    session.abandon()
    return None
