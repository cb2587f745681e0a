"""Stream bodies of any size between a connection and a file, with one chunk in memory at a time."""

from __future__ import annotations

import asyncio
import base64
from typing import BinaryIO, Final

from aiohttp import web

from infrai_async.local._errors import RequestRefused, invalid
from infrai_async.local.http.responses import abort
from infrai_async.local.objects.blobs import Upload

_IDLE: Final = 60.0
"""Seconds without data after which an upload is given up."""
_CHUNK: Final = 2**18


async def receive(request: web.BaseRequest, upload: Upload, most: int) -> None:
    """Write the body of a request to disk as it arrives.

    Raises:
        RequestRefused: if it has more than ``most`` bytes, does not match its ``Content-MD5``, or is incomplete.
    """
    length = request.content_length
    if length is not None and length > most:
        raise _too_large(most)
    try:
        while chunk := await _next(request):
            if upload.size + len(chunk) > most:
                raise _too_large(most)
            await asyncio.to_thread(upload.write, chunk)
    except TimeoutError:
        raise RequestRefused(
            408, "REQUEST_TIMEOUT", f"no data was received for {_IDLE:.0f} seconds", retryable=True
        ) from None
    except ConnectionError:
        raise _incomplete() from None
    if length is not None and upload.size != length:
        raise _incomplete()
    _check_md5(request.headers.get("Content-MD5"), upload)


async def send(
    request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, start: int, length: int
) -> web.StreamResponse:
    """Send ``length`` bytes of a file as the body of a response; if that fails halfway, abort the connection."""
    response.content_length = length
    try:
        await response.prepare(request)
        whole = request.method == "HEAD" or await _copy(request, response, file, start, length) == length
    except ConnectionError:
        whole = False
    if not whole:
        abort(request)
    return response


async def _next(request: web.BaseRequest) -> bytes:
    async with asyncio.timeout(_IDLE):
        return await request.content.readany()


async def _copy(request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, start: int, length: int) -> int:
    """Send the bytes with the kernel's sendfile, if the event loop supports it, and return how many were sent."""
    transport = request.transport
    if not length or transport is None or transport.is_closing():
        return 0
    try:
        return await asyncio.get_running_loop().sendfile(transport, file, start, length)
    except NotImplementedError:  # a loop such as uvloop's
        return await _copy_by_hand(response, file, start, length)


async def _copy_by_hand(response: web.StreamResponse, file: BinaryIO, start: int, length: int) -> int:
    await asyncio.to_thread(file.seek, start)
    sent = 0
    while chunk := await asyncio.to_thread(file.read, min(_CHUNK, length - sent)):
        await response.write(chunk)
        sent += len(chunk)
    return sent


def _check_md5(expected: str | None, upload: Upload) -> None:
    if expected is None:
        return
    try:
        digest = base64.b64decode(expected, validate=True)
    except ValueError:
        digest = b""
    if digest != upload.md5.digest():
        raise invalid("the body does not match Content-MD5", **{"Content-MD5": "the base64 of its MD5 digest"})


def _too_large(most: int) -> RequestRefused:
    return RequestRefused(413, "VALIDATION_ERROR", f"the object is larger than the {most} bytes that the URL allows")


def _incomplete() -> RequestRefused:
    return RequestRefused(400, "VALIDATION_ERROR", "the body is incomplete")
