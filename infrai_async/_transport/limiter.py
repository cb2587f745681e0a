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


class CapacityLimiter:
    """``limit`` places, handed straight to whoever has waited longest; loops in several threads share them.

    Free places lie in a list, which may be taken from and put back to without a lock. Only who waits, and who hands
    over to somebody that waits, has the lock. Nothing is missed between the two: who waits looks at the list again
    after joining the queue, and who gives back looks at the queue after filling the list.
    """

    __slots__ = ("_allocated", "_closed", "_free", "_lock", "_queue", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Have every place free and nobody waiting, as in a forked child."""
        self.waiting = 0
        self._free: list[None] = []
        self._allocated = 0  # places that were ever taken at once; the list holds those of them that are free
        self._queue: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many are taken now."""
        return self._allocated - len(self._free)

    def acquire_nowait(self) -> int:
        """Take a place if one is free and nobody waits; return how many are taken then, 0 without one."""
        if self._queue or self._closed:
            return 0
        try:
            self._free.pop()
        except IndexError:
            if not self._allocate():
                return 0
        free = len(self._free)  # read first: what another thread does meanwhile can only make the count too high
        return self._allocated - free

    def _allocate(self) -> bool:
        with self._lock:
            if self._allocated == self.limit:
                return False
            self._allocated += 1
            return True

    async def acquire(self) -> bool:
        """Wait for a place; false when the pool closes first."""
        if self.acquire_nowait():
            return True
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        with self._lock:
            if self._closed:
                return False
            self._queue.append(waiter)
            self.waiting += 1
        self._grant_free()
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
        self._free.append(None)
        if self._queue:
            self._grant_free()

    def _grant_free(self) -> None:
        """Give what is free to those who wait, in their order."""
        while (waiter := self._next_waiter()) is not None:
            if not _notify(waiter, granted=True):
                self._free.append(None)

    def _next_waiter(self) -> _Waiter | None:
        """Return who is to have a place that is free, which is taken by that; ``None`` without either."""
        with self._lock:
            while self._queue:
                if not self._queue[0].queued:
                    self._queue.popleft()  # gave up
                    continue
                try:
                    self._free.pop()
                except IndexError:  # whoever gives it back looks at the queue then
                    return None
                waiter = self._queue.popleft()
                waiter.queued, waiter.granted = False, True
                self.waiting -= 1
                return waiter
            return None

    def close(self) -> None:
        """Send everybody away who waits or comes later."""
        with self._lock:
            self._closed = True
            refused = [waiter for waiter in self._queue if waiter.queued]
            self._queue.clear()
            self.waiting = 0
            for waiter in refused:
                waiter.queued = False
        for waiter in refused:
            _notify(waiter, granted=False)


def _notify(waiter: _Waiter, *, granted: bool) -> bool:
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
