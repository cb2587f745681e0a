"""The limit on the number of calls in flight, shared by all event loops, in first-in, first-out order."""

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
    """A fixed number of slots, shared by event loops in several threads; a free slot goes to the longest waiter.

    The fast path takes free slots from a list and puts them back without a lock, because ``list.pop`` and
    ``list.append`` are atomic. Only waiting, and granting a slot to a waiter, needs the lock.

    No wake-up is lost between the two. A waiter joins the queue first and then looks for a free slot; ``release``
    frees the slot first and then looks at the queue. Whichever comes second sees the other.
    """

    __slots__ = ("_allocated", "_closed", "_free", "_lock", "_queue", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Free every slot and forget all waiters, as in a forked child process."""
        self.waiting = 0
        self._free: list[None] = []
        self._allocated = 0  # the most slots ever in use at once; ``_free`` holds those of them that are free now
        self._queue: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """The number of slots in use."""
        return self._allocated - len(self._free)

    def acquire_nowait(self) -> int:
        """Acquire a slot if one is free and no call waits; return the number of slots in use, or 0 on failure."""
        if self._queue or self._closed:
            return 0
        try:
            self._free.pop()
        except IndexError:
            if not self._allocate():
                return 0
        free = len(self._free)  # read first, so that what another thread allocates meanwhile can only add to the result
        return self._allocated - free

    def _allocate(self) -> bool:
        with self._lock:
            if self._allocated == self.limit:
                return False
            self._allocated += 1
            return True

    async def acquire(self) -> bool:
        """Wait for a slot; return false if the limiter is closed first."""
        if self.acquire_nowait():
            return True
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        with self._lock:
            if self._closed:  # checked under the lock, so that ``close`` misses no waiter
                return False
            self._queue.append(waiter)
            self.waiting += 1
        self._grant_free()  # a slot may have been released before this call was in the queue
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: _Waiter) -> None:
        # Cancellation may race with a grant. Under the lock a waiter is either still queued or already granted, and
        # once it is not queued ``granted`` no longer changes. A slot that was granted too late goes to the next waiter.
        with self._lock:
            if waiter.queued:
                waiter.queued = False
                self.waiting -= 1
        if waiter.granted:
            self.release()

    def release(self) -> None:
        """Release a slot, to the call that has waited longest if there is one."""
        self._free.append(None)
        if self._queue:
            self._grant_free()

    def _grant_free(self) -> None:
        """Grant the free slots to the waiters, in order."""
        while (waiter := self._next_waiter()) is not None:
            if not _notify(waiter, granted=True):
                self._free.append(None)  # the waiter's event loop is closed, so the next waiter gets the slot

    def _next_waiter(self) -> _Waiter | None:
        """Take a free slot for the first waiter, and return that waiter; ``None`` without a slot or a waiter."""
        with self._lock:
            while self._queue:
                if not self._queue[0].queued:
                    self._queue.popleft()  # cancelled
                    continue
                try:
                    self._free.pop()
                except IndexError:  # the next ``release`` looks at the queue
                    return None
                waiter = self._queue.popleft()
                waiter.queued, waiter.granted = False, True
                self.waiting -= 1
                return waiter
            return None

    def close(self) -> None:
        """Refuse all waiters, and all later calls."""
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
    """Wake a waiter in its own event loop; return false if that loop is closed."""
    try:
        in_own_loop = asyncio.get_running_loop() is waiter.loop
    except RuntimeError:
        in_own_loop = False
    if in_own_loop:
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
