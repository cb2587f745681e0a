"""The headers of requests: those of a view of the client, put together once for each key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from aiohttp import hdrs
from multidict import CIMultiDict, istr

from infrai_async._protocol.config import Secret

_SHORTEST_SECRET: Final = 8
_IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_JSON: Final = "application/json"

_Pair: TypeAlias = "tuple[Secret | None, HeaderTemplate, HeaderTemplate]"


class HeaderTemplate:
    """The headers that requests with one key, and with or without a body, have in common.

    aiohttp puts them together for the first of them, with its own among them; for those that follow they are copied.

    Attributes:
        complete: all headers, aiohttp's own included; ``None`` before the first request's are known.
    """

    __slots__ = ("_given", "_secret", "complete")

    def __init__(self, given: Mapping[str, str], key: Secret | None, with_body: bool) -> None:
        self._given: CIMultiDict[str] = CIMultiDict(given)
        for name in (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, _IDEMPOTENCY_KEY):
            self._given.popall(name, None)  # ours, also where this request has none
        if key is not None:
            self._given[hdrs.AUTHORIZATION] = Secret(f"Bearer {key}")
        if with_body:
            self._given[hdrs.CONTENT_TYPE] = _JSON
        self.complete: CIMultiDict[str] | None = None
        self._secret = key.encode() if key is not None and len(key) >= _SHORTEST_SECRET else None

    def to_give(self, idempotency_key: str | None) -> CIMultiDict[str]:
        """Return what aiohttp is to be given for a request, to put its own to it."""
        return self._given if idempotency_key is None else _with_key(self._given, idempotency_key)

    def completed(self, idempotency_key: str | None) -> CIMultiDict[str] | None:
        """Return all headers of a request; ``None`` before they are known."""
        if self.complete is None:
            return None
        return self.complete.copy() if idempotency_key is None else _with_key(self.complete, idempotency_key)

    def learn(self, headers: CIMultiDict[str]) -> None:
        """Learn all headers from a request that aiohttp has put together."""
        complete = headers.copy()
        complete.popall(_IDEMPOTENCY_KEY, None)
        self.complete = complete

    def redact(self, body: bytes | None) -> bytes | None:
        """Return an answer, if there is one, without the key: a service may repeat what it was sent."""
        # Not ``in``, which first tries to make a number of the secret. No variable has it, for those who dump frames.
        if self._secret is None or body is None or body.find(self._secret) < 0:
            return body
        return body.replace(self._secret, b"***")


def _with_key(headers: CIMultiDict[str], idempotency_key: str) -> CIMultiDict[str]:
    copied = headers.copy()
    copied[_IDEMPOTENCY_KEY] = idempotency_key
    return copied


class HeaderSet:
    """The headers of one view of a client."""

    __slots__ = ("_given", "_last", "_pairs")

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._pairs: dict[Secret | None, _Pair] = {}
        self._last = self._pair(None)  # one attribute, because several threads may use it

    def template(self, key: Secret | None, with_body: bool) -> HeaderTemplate:
        """Return what requests with this key, or without one, have in common."""
        last = self._last
        if last[0] is not key:
            last = self._last = self._pairs.get(key) or self._pair(key)
        return last[2] if with_body else last[1]

    def _pair(self, key: Secret | None) -> _Pair:
        if len(self._pairs) > 1:  # that of a key which is out of use
            self._pairs = {}
        bare, with_body = (HeaderTemplate(self._given, key, with_body) for with_body in (False, True))
        self._pairs[key] = pair = (key, bare, with_body)
        return pair
