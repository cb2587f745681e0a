"""Run work that must complete even if its caller is cancelled repeatedly, such as stopping a server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import anyio


async def to_the_end(work: Coroutine[None, None, None]) -> None:
    """Run ``work`` to completion, and only then raise a cancellation that arrived meanwhile.

    Raises:
        asyncio.CancelledError: if the caller was cancelled.
    """
    cancelled: asyncio.CancelledError | None = None
    task = asyncio.create_task(work)
    # asyncio delivers one CancelledError per cancel(), anyio one at every await inside a cancelled scope. The loop
    # handles the former, the shielded scope the latter.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
