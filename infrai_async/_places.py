"""Places in the pool: how many calls are in flight at once, first come first served, over every event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

import attrs


@attrs.define(eq=False)
class _Waiter:
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bool]
    queued: bool = True
    granted: bool = False


class Places:
    """``limit`` places, handed straight to whoever has waited longest; loops in several threads share them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.waiting = 0
        self._queue: deque[_Waiter] = deque()
        self._closed = False
        self._lock = threading.Lock()

    def take_now(self) -> bool:
        """Take a place if one is free and nobody is waiting for it."""
        with self._lock:
            if self.taken >= self.limit or self.waiting or self._closed:
                return False
            self.taken += 1
            return True

    async def take(self) -> bool:
        """Wait for a place; false when the pool closes first."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        with self._lock:
            if self._closed:
                return False
            if self.taken < self.limit and not self.waiting:
                self.taken += 1
                return True
            self._queue.append(waiter)
            self.waiting += 1
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.queued:
                waiter.queued = False
                self.waiting -= 1
        if waiter.granted:
            self.release()  # the place came at the same moment: it goes to the next one

    def release(self) -> None:
        """Give a place back: to the one who has waited longest, if any."""
        while True:
            with self._lock:
                waiter = self._next() if self._queue else None
                if waiter is None:
                    self.taken -= 1
                    return
            if _tell(waiter, granted=True):
                return

    def _next(self) -> _Waiter | None:
        while self._queue:
            waiter = self._queue.popleft()
            if waiter.queued:
                waiter.queued, waiter.granted = False, True
                self.waiting -= 1
                return waiter
        return None

    def close(self) -> None:
        """Send everybody away who waits or comes later."""
        with self._lock:
            self._closed = True
            sent_away = [waiter for waiter in self._queue if waiter.queued]
            self._queue.clear()
            self.waiting = 0
            for waiter in sent_away:
                waiter.queued = False
        for waiter in sent_away:
            _tell(waiter, granted=False)


def _tell(waiter: _Waiter, *, granted: bool) -> bool:
    """Wake a waiter in its own loop; false when that loop is gone."""
    try:
        here = asyncio.get_running_loop() is waiter.loop
    except RuntimeError:
        here = False
    if here:
        _wake(waiter.future, granted)
        return True
    try:
        waiter.loop.call_soon_threadsafe(_wake, waiter.future, granted)
    except RuntimeError:
        return False
    return True


def _wake(future: asyncio.Future[bool], granted: bool) -> None:
    if not future.done():
        future.set_result(granted)
