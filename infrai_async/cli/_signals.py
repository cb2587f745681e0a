"""Signal handling: a signal ends a command in an orderly way."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat


def leave_on_signals() -> None:
    """Exit with code 0 on a signal, until a command handles signals itself: nothing has been started yet."""
    for number in _signals():
        signal.signal(number, lambda *_: sys.exit(0))


@contextmanager
def cancel_on_signals(hurry: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Cancel the current task on the first signal; later ones, until the end of the process, only call ``hurry``.

    However often Ctrl-C is pressed, a Postgres that was started must be stopped, and the process must end with the
    command's own exit code.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101 - this runs in a coroutine
    acts: Iterator[Callable[[], object]] = chain([task.cancel], repeat(hurry))

    def stop() -> None:
        next(acts)()

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
            loop.remove_signal_handler(number)  # restores the default handler, which would end the process
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _signals() -> list[signal.Signals]:
    """Return the signals to handle. SIGHUP reports a closed terminal; under ``nohup`` it is ignored."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]
