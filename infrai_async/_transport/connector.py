"""Connections: tuned sockets, knowledge of what was sent, and aiohttp's errors in our words."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from infrai_async.errors import ConnectError, TransportError

if TYPE_CHECKING:
    from aiohttp.typedefs import LooseHeaders

    from infrai_async._transport.headers import HeaderTemplate
    from infrai_async._transport.stats import Counters

CONNECT_SECONDS: Final = 10.0  # for one attempt's connection, TLS included; the call's own time bounds the whole
_RECEIVE_BYTES: Final = 64 * 2**10
trace_of_attempt: Final[ContextVar[ConnectionTrace]] = ContextVar("infrai_async_trace_of_attempt")
"""What aiohttp calls for a request finds the attempt by this: it hands on nothing of ours."""

_recv: Final = socket.socket.recv  # found once: ``super()`` would be a third of what these two methods cost
_send: Final = aiohttp.ClientRequest.send


class ConnectionTrace:
    """What was seen of one attempt's connection: tells what was sent from what never left.

    Attributes:
        connected: whether anything may have been sent; where connections are not ours to watch, it always is.
        headers: what the request's headers are made from.
        idempotency_key: what they have besides.
    """

    __slots__ = ("_counters", "_fresh", "_transport", "connected", "headers", "idempotency_key")

    def __init__(
        self, counters: Counters, headers: HeaderTemplate, idempotency_key: str | None, connected: bool
    ) -> None:
        self._counters = counters
        self.headers = headers
        self.idempotency_key = idempotency_key
        self.connected = connected
        self._fresh = False
        self._transport: asyncio.Transport | None = None

    def opens(self) -> None:
        """Note that a connection is made for it."""
        self._fresh = True

    def uses(self, transport: asyncio.Transport | None) -> None:
        """Note its connection: from here on bytes may leave."""
        self.connected, self._transport = True, transport
        if self._fresh:
            self._counters.connections_opened += 1
        else:
            self._counters.connections_reused += 1

    def abort(self) -> None:
        """End the connection now: over TLS a polite close would outlive the session, waiting for the other side."""
        if self._transport is not None:
            self._transport.abort()


class _Socket(socket.socket):
    """Asks for less at once than asyncio does: its 256 KiB buffer, made anew for each read, costs 16 % of a call."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return _recv(self, bufsize if bufsize < _RECEIVE_BYTES else _RECEIVE_BYTES, flags)


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    if (trace := trace_of_attempt.get(None)) is not None:
        trace.opens()
    return _Socket(*address[:3])


def make_connector(context: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """Return a connector without limits of its own (the pool counts)."""
    return aiohttp.TCPConnector(limit=0, ssl=True if context is None else context, socket_factory=_make_socket)


class TracedRequest(aiohttp.ClientRequest):
    """aiohttp's request, which reports its connection and takes headers that are ready.

    aiohttp makes the headers of a request by two methods, in this order. They are copied from a template once both
    were called for a request before; an aiohttp that calls them no more puts all headers together itself.
    """

    _learner: HeaderTemplate | None  # whom the headers are ready for when they are put together

    def update_headers(self, headers: LooseHeaders | None) -> None:
        """Take the headers that are ready, or put them together."""
        trace = trace_of_attempt.get(None)
        ready = None if trace is None or headers else trace.headers.completed(trace.idempotency_key)
        if ready is not None:
            self._learner = None
            self.headers = ready
        else:
            self._learner = None if trace is None else trace.headers
            super().update_headers(headers)

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add aiohttp's own to those that were not ready, which are so from now on."""
        if self._learner is not None:
            super().update_auto_headers(skip_auto_headers)
            self._learner.learn(self.headers)

    def send(self, conn: aiohttp.connector.Connection) -> CoroutineType[Any, Any, aiohttp.ClientResponse]:
        """Send it. A plain method, because each time a call waits one more coroutine would cost something."""
        if (trace := trace_of_attempt.get(None)) is not None:
            trace.uses(conn.transport)
        return _send(self, conn)  # type: ignore[return-value] # mypy knows coroutines by their abstract type


def environment_proxy(origin: str) -> str | None:
    """Return the proxy that the environment names for the service, as the standard library reads it.

    aiohttp's own ``trust_env`` also takes credentials from ``.netrc``, which exclude our ``Authorization``.
    """
    parts = urlsplit(origin)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    proxy = getproxies().get(parts.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def as_transport_error(error: aiohttp.ClientError | OSError) -> tuple[TransportError, bool]:
    """Return aiohttp's error as ours, and whether it is certain that nothing was sent.

    Those whose text or fields may hold a secret (a proxy's URL, the request's headers) are not chained.
    """
    match error:
        case aiohttp.ClientHttpProxyError():
            return ConnectError(f"the proxy refused the connection (HTTP {error.status})"), True
        case aiohttp.ClientProxyConnectionError():
            return ConnectError(f"cannot connect to the proxy: {error.os_error}"), True
        case aiohttp.InvalidURL():
            return ConnectError("the address of the service or of its proxy is no URL that can be connected to"), True
        case aiohttp.ClientResponseError():
            return TransportError(f"the answer is not HTTP: {error.message}"), False
        case aiohttp.ClientConnectorCertificateError():
            reason: object = error.certificate_error
        case aiohttp.ClientConnectorError():
            reason = error.os_error
        case aiohttp.ConnectionTimeoutError():
            return _chained(ConnectError(str(error)), error), True
        case _:
            return _chained(TransportError(str(error) or type(error).__name__), error), False
    return _chained(ConnectError(f"cannot connect to {error.host}:{error.port}: {reason}"), error), True


def _chained(mapped: TransportError, cause: Exception) -> TransportError:
    mapped.__cause__ = cause
    return mapped
