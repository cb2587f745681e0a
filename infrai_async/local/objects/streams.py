"""Stream bodies of any size between a connection and a file, with one chunk in memory at a time."""

from __future__ import annotations

import asyncio
from typing import BinaryIO, Final

from aiohttp import web

from infrai_async.local._errors import RequestRefused
from infrai_async.local.http.body import let_body_come
from infrai_async.local.http.responses import abort
from infrai_async.local.objects.blobs import Upload
from infrai_async.local.objects.checksums import announced

_IDLE: Final = 60.0
"""Seconds without data after which an upload is given up."""
_CHUNK: Final = 2**18


async def receive(request: web.BaseRequest, upload: Upload, most: int) -> None:
    """Write the body of a request to disk as it arrives.

    Raises:
        RequestRefused: if it has more than ``most`` bytes, does not match a checksum in its headers, or is incomplete.
    """
    length, checks = request.content_length, announced(request.headers)
    if length is not None and length > most:
        raise _too_large(most)
    upload.hashers += [check.hasher for check in checks]
    await let_body_come(request)
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
    for check in checks:
        check.verify()


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


def _too_large(most: int) -> RequestRefused:
    return RequestRefused(413, "VALIDATION_ERROR", f"the object is larger than the {most} bytes that the URL allows")


def _incomplete() -> RequestRefused:
    return RequestRefused(400, "VALIDATION_ERROR", "the body is incomplete")
