"""The asyncio task that asynchronous code needs, or an error that says so."""

from __future__ import annotations

import asyncio
from typing import Any

from infrai_async.errors import ConfigurationError


def no_event_loop() -> ConfigurationError:
    """Return the error for a call that no asyncio task makes."""
    return ConfigurationError(
        "AsyncInfrai needs asyncio, and no asyncio task is running here: await it in a coroutine that asyncio.run(...) "
        "runs; under trio, use the blocking client in a thread, trio.to_thread.run_sync(Infrai().db.project.get, id)"
    )


def require_task() -> asyncio.Task[Any]:
    """Return the current task.

    Raises:
        ConfigurationError: there is none: no event loop of asyncio is running, or something else runs inside it.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        raise no_event_loop() from None
    return task
