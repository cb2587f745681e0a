"""Read the body of a request, and give up on a client that leaves half of one."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import HttpVersion11, web

from infrai_async.local._errors import RequestRefused, invalid

PATIENCE: Final = 60.0
"""Seconds that a client may send nothing in the middle of a request, and keep a connection without one."""


def check_expectation(request: web.BaseRequest) -> None:
    """Check the header ``Expect``, which can only ask for 100 Continue.

    Raises:
        RequestRefused: 400, if it asks for something else.
    """
    expected = request.headers.get("Expect")
    if expected is not None and request.version >= HttpVersion11 and expected.lower() != "100-continue":
        raise invalid("Expect must be '100-continue' or absent", Expect="'100-continue'")


async def let_body_come(request: web.BaseRequest) -> None:
    """Send 100 Continue if the client waits for it before sending its body (RFC 9110, section 10.1.1).

    It is called right before the body is read, so that a request that is refused is refused before its body is sent.
    """
    if request.headers.get("Expect") is not None and request.version >= HttpVersion11 and not request.content.is_eof():
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # otherwise aiohttp assumes that a response has already been started


async def read_body(request: web.BaseRequest) -> bytes:
    """Return the whole body.

    Raises:
        RequestRefused: 408, if nothing more of it has arrived for ``PATIENCE``.
    """
    if request.content.is_eof():
        return await request.read()
    await let_body_come(request)
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
