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

    Later ones change nothing: a Postgres that was started has to be ended, however often Ctrl-C is pressed.
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
        for number in numbers:
            loop.remove_signal_handler(number)


def _signals() -> list[signal.Signals]:
    """SIGHUP is a closed terminal, unless ``nohup`` says that it shall not matter."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]
