"""Work that has to be done to its end, however often whoever waits for it is cancelled: a server has to be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import anyio


async def to_the_end(work: Coroutine[None, None, None]) -> None:
    """Do ``work``, all of it; a cancellation that came meanwhile is raised after it.

    Raises:
        asyncio.CancelledError: whoever waits was cancelled.
    """
    cancelled: asyncio.CancelledError | None = None
    task = asyncio.create_task(work)
    # anyio cancels again at every wait inside a scope that was cancelled, asyncio once for each cancel().
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
