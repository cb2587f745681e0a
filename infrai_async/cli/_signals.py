"""Signal handling: a signal ends a command in an orderly way."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def leave_on_signals() -> None:
    """Exit with success on a signal, until ``cancel_on_signals`` takes over; nothing needs clearing up before."""
    for number in _signals():
        signal.signal(number, lambda *_: sys.exit(0))


@contextmanager
def cancel_on_signals() -> Iterator[None]:
    """Cancel the current task at the first signal.

    Later signals are ignored until the process ends: however often Ctrl-C is pressed, the Postgres that was started
    must be stopped and the command must return its own exit code.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101 - this runs in a coroutine
    first = iter([task.cancel])

    def stop() -> None:
        for cancel in first:
            cancel()

    numbers = _signals()
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        # Blocked, because removing a handler restores the default one, and a signal that arrives before SIG_IGN is set
        # would kill the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _signals() -> list[signal.Signals]:
    """Return the signals to handle; SIGHUP is left out if ``nohup`` ignores it."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]
