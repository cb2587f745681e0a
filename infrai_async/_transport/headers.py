"""The headers of requests, prepared once for each client view and API key."""

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
    """The common headers of the requests with one API key, either with or without a body.

    aiohttp builds the headers of the first request and adds its own. Later requests copy the result.

    Attributes:
        complete: all headers, including aiohttp's own; ``None`` until the first request has been built.
    """

    __slots__ = ("_given", "_secret", "complete")

    def __init__(self, given: Mapping[str, str], key: Secret | None, with_body: bool) -> None:
        self._given: CIMultiDict[str] = CIMultiDict(given)
        for name in (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, _IDEMPOTENCY_KEY):
            self._given.popall(name, None)  # reserved for the client, even if this request does not have them
        if key is not None:
            self._given[hdrs.AUTHORIZATION] = Secret(f"Bearer {key}")
        if with_body:
            self._given[hdrs.CONTENT_TYPE] = _JSON
        self.complete: CIMultiDict[str] | None = None
        self._secret = key.encode() if key is not None and len(key) >= _SHORTEST_SECRET else None

    def to_pass(self, idempotency_key: str | None) -> CIMultiDict[str]:
        """Return the headers to pass to aiohttp, which adds its own."""
        return self._given if idempotency_key is None else _with_key(self._given, idempotency_key)

    def completed(self, idempotency_key: str | None) -> CIMultiDict[str] | None:
        """Return all headers of a request; ``None`` until they are known."""
        if self.complete is None:
            return None
        return self.complete.copy() if idempotency_key is None else _with_key(self.complete, idempotency_key)

    def learn(self, headers: CIMultiDict[str]) -> None:
        """Store the headers of a request that aiohttp has built."""
        complete = headers.copy()
        complete.popall(_IDEMPOTENCY_KEY, None)
        self.complete = complete

    def redact(self, body: bytes | None) -> bytes | None:
        """Return the body of a response without the API key, which a service may repeat in it."""
        # Not ``in``, which first tries to convert the secret to an integer. The secret is in no local variable, so that
        # tracebacks with local variables do not show it.
        if self._secret is None or body is None or body.find(self._secret) < 0:
            return body
        return body.replace(self._secret, b"***")


def _with_key(headers: CIMultiDict[str], idempotency_key: str) -> CIMultiDict[str]:
    copied = headers.copy()
    copied[_IDEMPOTENCY_KEY] = idempotency_key
    return copied


class HeaderSet:
    """The headers of one client view; ``given`` are those that its maker gave, without our own."""

    __slots__ = ("_all", "_last", "_pairs", "given")

    def __init__(self, complete: Mapping[str, str], given: Mapping[str, str]) -> None:
        self._all = complete
        self.given = given
        self._pairs: dict[Secret | None, _Pair] = {}
        # A single attribute for key and templates: threads read it without a lock, and must not see a mix of two pairs.
        self._last = self._pair(None)

    def template(self, key: Secret | None, with_body: bool) -> HeaderTemplate:
        """Return the template for requests with this API key, or without one."""
        last = self._last
        if last[0] is not key:
            last = self._last = self._pairs.get(key) or self._pair(key)
        return last[2] if with_body else last[1]

    def _pair(self, key: Secret | None) -> _Pair:
        if len(self._pairs) > 1:  # drops the templates of an earlier key
            self._pairs = {}
        bare, with_body = (HeaderTemplate(self._all, key, with_body) for with_body in (False, True))
        self._pairs[key] = pair = (key, bare, with_body)
        return pair
