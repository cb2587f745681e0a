"""Run the gateway in an event loop of its own, in a thread, for code that blocks."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - its threads end at exit; ours, which needs them, must be told before
import threading
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final

_SLICE: Final = 0.25
"""Seconds between two looks of a waiting thread, which would miss a Ctrl-C that comes right before it waits."""


class OwnThread:
    """Keeps an asynchronous context manager entered in a thread, from ``start`` until ``stop`` or the program's end.

    Args:
        context: what to enter and leave in the thread's event loop.
        name: the name of the thread.
    """

    def __init__(self, context: AbstractAsyncContextManager[object], name: str) -> None:
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._entered = threading.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        # A daemon, since the interpreter would wait for another thread before it runs what ends this one.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def is_here(self) -> bool:
        """Return whether the current thread is this one."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Enter the context and return once that is done.

        Raises:
            BaseException: what entering raised, or a Ctrl-C, after which the context has been left.
        """
        self._thread.start()
        _running.add(self)
        try:
            while not self._entered.wait(_SLICE):
                pass
        except BaseException:
            self.stop()
            raise
        if not self._stopping and self._failure is not None:
            self.stop()

    def stop(self) -> None:
        """Leave the context and return once that is done; idempotent.

        Raises:
            BaseException: what entering or leaving raised.
        """
        self._stopping = True
        while self._thread.is_alive():  # not in a forked child, which has no such thread
            if self._loop is not None and self._task is not None:
                with suppress(RuntimeError):  # the loop has just ended
                    self._loop.call_soon_threadsafe(self._task.cancel)
                self._task = None  # once: a second cancellation would be for whatever it does to end
            self._thread.join(_SLICE)
        _running.discard(self)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        try:
            asyncio.run(self._stay())
        except BaseException as error:  # noqa: BLE001 - raised again by ``start`` or ``stop``
            if not (self._stopping and isinstance(error, asyncio.CancelledError)):
                self._failure = error
        finally:
            self._entered.set()

    async def _stay(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with self._context:
            self._entered.set()
            await asyncio.Event().wait()


_running: Final[set[OwnThread]] = set()


def _stop_all() -> None:
    """End the threads that nobody has stopped before the program ends, such as that of a notebook."""
    for thread in tuple(_running):
        thread.stop()


# By the time of ``atexit`` the executors that closing needs take no work any more. These run in reverse order.
getattr(threading, "_register_atexit", atexit.register)(_stop_all)
