"""What a call takes along into the pool: its ticket, and the headers of the view of the client that makes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict, istr

from infrai_async._answer import Answer, Broken
from infrai_async._config import Secret
from infrai_async._connect import Sighting, sighting
from infrai_async._flow import Call, Closed, Expired, Refused
from infrai_async._request import Request
from infrai_async.errors import TimeoutError, TransportError

if TYPE_CHECKING:
    from infrai_async._reporter import Reporter

_SHORTEST_SECRET: Final = 8
_IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_JSON: Final = "application/json"


class HeaderSet:
    """The headers of one view of a client, put together once for each key."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._key: str | None = None  # the last one
        self._made: dict[tuple[str | None, bool], CIMultiDict[str]] = {}

    def of(self, request: Request, key: str | None) -> CIMultiDict[str]:
        """Return the headers of one request; aiohttp copies them, so that most calls can share them."""
        shape = (key, request.body is not None)
        headers = self._made.get(shape)
        if headers is None:
            if key != self._key and key is not None:
                self._key, self._made = key, {}
            headers = self._made[shape] = self._build(key, with_body=shape[1])
        if request.idempotency_key is None:
            return headers
        headers = headers.copy()
        headers[_IDEMPOTENCY_KEY] = request.idempotency_key
        return headers

    def _build(self, key: str | None, *, with_body: bool) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict(self._given)
        for name in (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, _IDEMPOTENCY_KEY):
            headers.popall(name, None)  # ours, also where this request has none
        if key is not None:
            headers[hdrs.AUTHORIZATION] = Secret(f"Bearer {key}")
        if with_body:
            headers[hdrs.CONTENT_TYPE] = _JSON
        return headers


class Ticket(Call, Sighting):
    """One call in the pool: who runs it, what it waits for, and what was seen of its attempts."""

    headers: HeaderSet
    task: asyncio.Task[Any]
    cancelling: int
    begun: float  # or when the last attempt ended
    started_at: float
    sent_at: float
    key: Secret | None = None
    keys_asked = 0
    waits = ""
    sending = False
    opens_at = 0.0  # when the gate opens, if that is too late
    attempts = 0
    retries = 0
    ended_by = ""
    reporter: Reporter | None = None

    def sends(self, key: Secret | None, *, again: bool, connected: bool) -> None:
        """Note that an attempt begins, and watch for its connection."""
        self.connected, self.fresh, self.transport = connected, False, None
        sighting.set(self)
        self.key = key
        self.sending = True
        self.attempts += 1
        self.retries += again
        self.started_at, self.sent_at = time.time(), time.monotonic()

    def end(self, why: str) -> None:
        """Cancel the call for a reason of the pool's own."""
        if not self.ended_by:
            self.ended_by = why
            self.task.cancel()

    def interrupted(self) -> Broken | Closed | Expired | Refused | None:
        """Say what a cancellation means: the pool's own reason, or ``None`` for somebody else's."""
        if not self.ended_by or self.task.uncancel() > self.cancelling:
            return None
        if self.ended_by == "refused":
            return Refused(self.opens_at - time.monotonic())
        if not self.sending:
            return Closed() if self.ended_by == "closed" else Expired(self.waits)
        if self.ended_by == "closed":
            return self.broken(TransportError("the client was closed before the answer came"))
        return self.broken(TimeoutError("the call's time ran out before the answer came"))

    def broken(self, error: TransportError, *, not_sent: bool = False) -> Broken:
        """Describe an attempt that got no complete answer."""
        sent = self.connected and not not_sent
        waited, self.begun = self.sent_at - self.begun, time.monotonic()
        return Broken(error, sent, self.started_at, self.begun - self.sent_at, waited)

    def answered(self, response: aiohttp.ClientResponse, body: bytes | None) -> Answer:
        """Describe an attempt that got an answer; without a ``body``, one that was too large."""
        key = self.key
        if key is not None and body is not None and (secret := key.encode()) in body and len(key) >= _SHORTEST_SECRET:
            body = body.replace(secret, b"***")  # a service may repeat what it was sent
        waited, self.begun = self.sent_at - self.begun, time.monotonic()
        took = self.begun - self.sent_at
        return Answer(response.status, response.headers, body or b"", self.started_at, took, waited, body is None)
