"""Apply the rate limit and the faults to calls: delay them, refuse them, or damage their responses."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Final

import attrs
from aiohttp import web

from infrai_async.local._errors import RequestRefused, retry_after
from infrai_async.local.faults.faults import Fault, Faults
from infrai_async.local.faults.rate_limit import Limit
from infrai_async.local.http.body import read_body
from infrai_async.local.http.responses import abort
from infrai_async.local.services.account import open_checkout
from infrai_async.local.services.base import ServiceContext
from infrai_async.models import JSON

_LOOK: Final = 0.05
"""Seconds between checks whether a client that is being delayed is still connected."""


@attrs.define
class FaultInjector:
    """The rate limit and the faults that are set; they survive a restart of the ``LocalGateway`` object."""

    limit: Limit | None = None
    faults: Faults = attrs.field(factory=Faults)

    def set_limit(self, rate: float | None = 100, burst: int = 20) -> None:
        """Limit each account to ``rate`` calls per second, with bursts of ``burst``; ``None`` means no limit."""
        self.limit = None if rate is None else Limit(rate, burst)

    def lift_limit(self) -> None:
        """Remove the rate limit."""
        self.limit = None

    def admit(self, capability: str, account: str) -> Fault:
        """Check a call against the rate limit and return its fault; a refused call uses up no fault.

        Raises:
            RequestRefused: 429, if the account exceeds its limit.
        """
        limit = self.limit  # read once, since another thread may remove it
        wait = limit.wait(account, time.monotonic_ns()) if limit is not None else 0
        if wait:
            headers = retry_after(wait / 1e9)
            raise RequestRefused(429, "RATE_LIMITED", "the rate limit of the account is exceeded", headers=headers)
        return self.faults.take(capability)


async def before(
    fault: Fault, capability: str, account: str, request: web.BaseRequest, context: ServiceContext
) -> None:
    """Apply the part of a fault that precedes the call: the latency and the status.

    Raises:
        RequestRefused: if the fault has a status.
    """
    if fault.latency:
        await read_body(request)  # now, because the body cannot be read any more if the client disconnects
        await _linger(request, fault.latency)
    if fault.status is not None:
        extra: dict[str, JSON] = {}
        if fault.status == 402 and account:
            extra["checkout_url"] = await context.store.run(partial(open_checkout, context, account))
        raise fault.refusal(capability, extra)


async def _linger(request: web.BaseRequest, seconds: float) -> None:
    """Wait, unless the client disconnects: otherwise closing the gateway would wait for the full latency too."""
    end = time.monotonic() + seconds
    while request.transport is not None:
        left = end - time.monotonic()
        if left <= 0:
            return
        await asyncio.sleep(min(left, _LOOK))


async def after(request: web.BaseRequest, answer: web.Response, fault: Fault) -> web.StreamResponse:
    """Apply the part of a fault that follows the call: drop or truncate the response."""
    if fault.drop:
        abort(request)
    return await _cut_short(request, answer) if fault.truncate else answer


async def _cut_short(request: web.BaseRequest, answer: web.Response) -> web.StreamResponse:
    """Announce the whole body in ``Content-Length`` and send half of it."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    half = web.StreamResponse(status=answer.status, headers=answer.headers)
    half.content_length = len(body)
    half.force_close()
    with suppress(ConnectionError):
        await half.prepare(request)
        await half.write(body[: len(body) // 2])
    return half
