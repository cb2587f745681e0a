"""What a signal does to a command: the end, but an orderly one."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def leave_on_signals() -> None:
    """From now on, until a command listens itself, a signal ends the process as a success: nothing runs yet."""
    for number in _signals():
        signal.signal(number, lambda *_: sys.exit(0))


@contextmanager
def cancel_on_signals() -> Iterator[None]:
    """Cancel the current task at the first signal.

    Later ones change nothing, to the end of the process: a Postgres that was started has to be ended, and then the
    command's own exit code has to come out, however often Ctrl-C is pressed.
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
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            loop.remove_signal_handler(number)  # which puts back what kills
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _signals() -> list[signal.Signals]:
    """SIGHUP is a closed terminal, unless ``nohup`` says that it shall not matter."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]
