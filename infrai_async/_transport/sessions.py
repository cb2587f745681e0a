"""The sessions of one client, one for each event loop that uses it."""

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
from aiohttp import hdrs
from yarl import URL

from infrai_async._event_loop import require_task
from infrai_async._transport.loop_session import LoopSession
from infrai_async._transport.stats import Counters
from infrai_async.errors import ConfigurationError

_OTHER_LOOP_SECONDS: Final = 2.0  # how long another event loop may take to close its part, beyond the grace period
_left_behind: Final[list[object]] = []


class LoopSessions:
    """Opens a session in each event loop that makes a call, and closes them all.

    The threads of several event loops may open, count and close at the same time. ``_by_loop`` and ``closed`` change
    under the lock. ``here``, the fast path, reads them without it: only a running loop itself replaces its own entry.

    Args:
        borrowed: the user's session, which can only be used in its own event loop.
        proxy: returns the proxy of a session that is about to be opened.
        context: returns the TLS context of a session that is about to be opened.
        address: host and port of the service, for messages.
    """

    def __init__(
        self,
        borrowed: aiohttp.ClientSession | None,
        proxy: Callable[[], str | URL | None],
        context: Callable[[], SSLContext | None],
        address: str,
    ) -> None:
        self.closed = False
        self._borrowed = borrowed
        self._proxy = proxy
        self._context = context
        self._address = address
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopSession] = {}
        self._borrowed_loop: asyncio.AbstractEventLoop | None = None
        self._past_counters = Counters()  # of event loops that are closed
        self._lock = threading.Lock()

    def here(self) -> LoopSession | None:
        """Return the session of the running event loop; ``None`` if it has none, or none that can be used."""
        if self.closed:
            return None  # checked first, because the blocking client calls a closed pool outside of any event loop
        try:
            session = self._by_loop[get_running_loop()]
        except (KeyError, RuntimeError):  # without an event loop, ``open`` says what is needed
            return None
        return None if session.over else session

    def open(self) -> LoopSession | None:
        """Open a session for the running event loop; return ``None`` if the client is closed.

        Raises:
            ConfigurationError: no event loop of asyncio is running, the borrowed session cannot be used here, or the
                environment's proxy is unusable.
        """
        if self.closed:
            return None
        loop = require_task().get_loop()
        with self._lock:
            if self.closed:  # checked again under the lock: ``close`` must not miss a session opened meanwhile
                return None
            if self._borrowed is not None:
                self._check_borrowed(loop, self._borrowed)
            for known in [known for known in self._by_loop if known is loop or known.is_closed()]:
                over = self._by_loop.pop(known)
                self._past_counters.add(over.counters)
                over.abandon()
            proxy, context = self._proxy(), self._context()
            session = self._by_loop[loop] = LoopSession(loop, self._borrowed, proxy, context, self._address)
        return session

    def all(self) -> tuple[LoopSession, ...]:
        """Return the sessions of all event loops."""
        return tuple(self._by_loop.copy().values())  # an atomic copy, because another thread may add a session

    def counters(self) -> Counters:
        """Return the sums of the counters of all event loops."""
        total = Counters()
        for part in (self._past_counters, *(session.counters for session in self.all())):
            total.add(part)
        return total

    def succeeded(self) -> int:
        """Return the number of calls that have succeeded so far."""
        count = self._past_counters.succeeded
        for session in self.all():
            count += session.counters.succeeded
        return count

    def _check_borrowed(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
        # aiohttp offers no public access to a session's loop. Without the attribute, the first loop to use it counts.
        owner = self._borrowed_loop or getattr(session, "_loop", loop)
        if owner is not loop:
            raise ConfigurationError("session belongs to another event loop: pass one of this event loop, or none")
        if session.closed:
            raise ConfigurationError("session is closed: pass an open one, or none")
        if session.auth is not None:
            raise ConfigurationError("session has credentials of its own, which exclude the API key: remove its auth=")
        if hdrs.EXPECT in session.headers:
            raise ConfigurationError("session has a header that changes the protocol: remove Expect from its headers")
        self._borrowed_loop = loop

    def refuse(self) -> None:
        """Refuse new calls and open no further sessions; callable from any thread."""
        with self._lock:
            self.closed = True

    async def close(self, grace: float) -> None:
        """Give running calls ``grace`` seconds, and close the sessions of all event loops."""
        self.refuse()
        with self._lock:
            by_loop = dict(self._by_loop)
        current_loop = get_running_loop()
        futures = [_close_in_loop(session, grace) for loop, session in by_loop.items() if loop is not current_loop]
        if current_loop in by_loop:
            await by_loop[current_loop].close(grace)
        running = [asyncio.wrap_future(future) for future in futures if future is not None]
        if running:  # with a timeout: a loop that stops meanwhile never completes its future
            done, _ = await asyncio.wait(running, timeout=grace + _OTHER_LOOP_SECONDS)
            for future in done:
                if not future.cancelled():
                    future.exception()  # marks it as retrieved, so that asyncio logs nothing

    def after_fork(self) -> None:
        """Start over in a forked child process; the sessions and their sockets remain the parent's."""
        _left_behind.append(self._by_loop)  # kept alive: if collected, they would close shared sockets, or warn
        for session in self._by_loop.values():
            self._past_counters.add(session.counters)
        self._by_loop, self._lock, self._borrowed_loop = {}, threading.Lock(), None


def _close_in_loop(session: LoopSession, grace: float) -> concurrent.futures.Future[None] | None:
    """Close a session in its own event loop; a loop that is not running closes it when it runs again."""
    # The other thread may stop or close its loop between the check and the call. The call then raises RuntimeError,
    # and the session is closed from here, where nothing runs in that loop any more.
    with contextlib.suppress(RuntimeError):
        if session.loop.is_running():
            return asyncio.run_coroutine_threadsafe(session.close(grace), session.loop)
        if not session.loop.is_closed():
            session.loop.call_soon_threadsafe(session.begin_closing, grace)
            return None
    session.abandon()
    return None
