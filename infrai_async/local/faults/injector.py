"""Lets calls meet what was set for them: the limit and the faults, on the clock and on the wire."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Final

import attrs
from aiohttp import web

from infrai_async.local._errors import RequestRefused
from infrai_async.local.faults.faults import Fault, Faults
from infrai_async.local.faults.rate_limit import Limit
from infrai_async.local.http.responses import abort
from infrai_async.local.services.account import open_checkout
from infrai_async.local.services.base import ServiceContext
from infrai_async.models import JSON

_LOOK: Final = 0.05
"""Seconds between looks at whether a caller that has to wait is still there."""


@attrs.define
class FaultInjector:
    """What was set; the gateway keeps it when it is closed and started again."""

    limit: Limit | None = None
    faults: Faults = attrs.field(factory=Faults)

    def set_limit(self, rate: float | None = 100, burst: int = 20) -> None:
        """Limit every account to ``rate`` calls per second and ``burst`` at once; ``None``: no limit."""
        self.limit = None if rate is None else Limit(rate, burst)

    def lift_limit(self) -> None:
        """Let everybody in."""
        self.limit = None

    def admit(self, capability: str, account: str) -> Fault:
        """Let a call in, and return what is to go wrong with it; who is not let in uses up no fault.

        Raises:
            RequestRefused: 429, the account is over its limit.
        """
        limit = self.limit  # which another thread may lift meanwhile
        wait = limit.wait(account, time.monotonic_ns()) if limit is not None else 0
        if wait:
            headers = {"Retry-After": _seconds(wait)}
            raise RequestRefused(429, "RATE_LIMITED", "more calls than the limit allows", headers=headers)
        return self.faults.take(capability)


def _seconds(nanoseconds: int) -> str:
    """Write a time in seconds, rounded up to milliseconds; a whole number where it is one."""
    milliseconds = -(-nanoseconds // 1_000_000)
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}".rstrip("0").rstrip(".")


async def before(
    fault: Fault, capability: str, account: str, request: web.BaseRequest, context: ServiceContext
) -> None:
    """Carry out what of a fault comes before the work.

    Raises:
        RequestRefused: the fault's own.
    """
    if fault.latency:
        await request.read()  # of a caller that hangs up meanwhile nothing more could be read
        await _linger(request, fault.latency)
    if fault.status is not None:
        extra: dict[str, JSON] = {}
        if fault.status == 402 and account:
            extra["checkout_url"] = await context.store.run(partial(open_checkout, context, account))
        raise fault.refusal(capability, extra)


async def _linger(request: web.BaseRequest, seconds: float) -> None:
    """Wait, but for nobody who has hung up: closing the gateway would wait for it too."""
    end = time.monotonic() + seconds
    while request.transport is not None:
        left = end - time.monotonic()
        if left <= 0:
            return
        await asyncio.sleep(min(left, _LOOK))


async def after(request: web.BaseRequest, answer: web.Response, fault: Fault) -> web.StreamResponse:
    """Return an answer as its fault leaves it on the wire."""
    if fault.drop:
        abort(request)
    return await _cut_short(request, answer) if fault.truncate else answer


async def _cut_short(request: web.BaseRequest, answer: web.Response) -> web.StreamResponse:
    """Announce a whole body and send half of it, unless nobody is there any more."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    half = web.StreamResponse(status=answer.status, headers=answer.headers)
    half.content_length = len(body)
    half.force_close()
    with suppress(ConnectionError):
        await half.prepare(request)
        await half.write(body[: len(body) // 2])
    return half
