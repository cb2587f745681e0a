"""Bytes between a connection and a file, whatever their number, in the memory of one chunk."""

from __future__ import annotations

import asyncio
import base64
from typing import BinaryIO, Final

from aiohttp import web

from infrai_async.local._errors import RequestRefused, invalid
from infrai_async.local.http.responses import abort
from infrai_async.local.objects.blobs import Upload

_IDLE: Final = 60.0
"""Seconds that a client may pause while it sends."""
_CHUNK: Final = 2**18


async def receive(request: web.BaseRequest, upload: Upload, most: int) -> None:
    """Write a request's body to the disk as it comes.

    Raises:
        RequestRefused: it is larger than ``most`` bytes, not what its ``Content-MD5`` says, or did not come to its end.
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
        raise RequestRefused(408, "REQUEST_TIMEOUT", f"no bytes came for {_IDLE:.0f} seconds", retryable=True) from None
    except ConnectionError:
        raise _incomplete() from None
    if length is not None and upload.size != length:
        raise _incomplete()
    _check_md5(request.headers.get("Content-MD5"), upload)


async def send(
    request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, start: int, length: int
) -> web.StreamResponse:
    """Send ``length`` bytes of a file as a response's body; a connection on which not all of them went is cut off."""
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
    """Have the kernel send the bytes, where the loop can, and return how many went."""
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
        raise invalid("the bytes that came are not those of Content-MD5", **{"Content-MD5": "base64 of their MD5"})


def _too_large(most: int) -> RequestRefused:
    return RequestRefused(413, "VALIDATION_ERROR", f"the object is larger than the {most} bytes that were signed")


def _incomplete() -> RequestRefused:
    return RequestRefused(400, "VALIDATION_ERROR", "the body came incomplete")
