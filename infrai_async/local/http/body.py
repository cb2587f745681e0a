"""Read the body of a request, and give up on a client that leaves half of one."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from infrai_async.local._errors import RequestRefused

PATIENCE: Final = 60.0
"""Seconds that a client may send nothing in the middle of a request, and keep a connection without one."""


async def read_body(request: web.BaseRequest) -> bytes:
    """Return the whole body.

    Raises:
        RequestRefused: 408, if nothing more of it has arrived for ``PATIENCE``.
    """
    if request.content.is_eof():
        return await request.read()
    reading = asyncio.ensure_future(request.read())
    try:
        while not reading.done():
            before = request.content.total_bytes
            await asyncio.wait({reading}, timeout=PATIENCE)
            if not reading.done() and request.content.total_bytes == before:
                message = f"the rest of the body has not arrived for {PATIENCE:g} s"
                raise RequestRefused(408, "REQUEST_TIMEOUT", message, retryable=True)
    finally:
        reading.cancel()
    return reading.result()
