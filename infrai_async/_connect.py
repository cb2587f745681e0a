"""Connections: tuned sockets, knowledge of what was sent, and aiohttp's errors in our words."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextvars import ContextVar
from types import CoroutineType
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from infrai_async.errors import ConnectError, TransportError

CONNECT_SECONDS: Final = 10.0  # for one attempt's connection, TLS included; the call's own time bounds the whole
_RECEIVE_BYTES: Final = 64 * 2**10
sighting: Final[ContextVar[Sighting]] = ContextVar("infrai_async_sighting")


class Sighting:
    """What was seen of one call's connections: tells what was sent from what never left.

    Attributes:
        connected: whether anything may have been sent; where connections are not ours to watch, it always is.
    """

    connected = False
    opened = 0
    reused = 0
    fresh = False
    transport: asyncio.Transport | None = None

    def see(self, transport: asyncio.Transport | None) -> None:
        """Note a connection: from here on bytes may leave."""
        self.connected, self.transport = True, transport
        if self.fresh:
            self.opened += 1
        else:
            self.reused += 1

    def abort(self) -> None:
        """End the connection now: over TLS a polite close would outlive the session, waiting for the other side."""
        if self.transport is not None:
            self.transport.abort()


class _Socket(socket.socket):
    """Asks for less at once than asyncio does: its 256 KiB buffer, made anew for each read, costs 16 % of a call."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return super().recv(min(bufsize, _RECEIVE_BYTES), flags)


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    if (watching := sighting.get(None)) is not None:
        watching.fresh = True
    return _Socket(*address[:3])


def make_connector(context: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """Return a connector without limits of its own (the pool counts)."""
    return aiohttp.TCPConnector(limit=0, ssl=True if context is None else context, socket_factory=_make_socket)


class ReportedRequest(aiohttp.ClientRequest):
    """aiohttp's request, which reports its connection to whoever watches."""

    def send(self, conn: aiohttp.connector.Connection) -> CoroutineType[Any, Any, aiohttp.ClientResponse]:
        """Send it; a plain method, because a coroutine of its own would be run through at every wait."""
        if (watching := sighting.get(None)) is not None:
            watching.see(conn.transport)
        return super().send(conn)  # type: ignore[return-value] # mypy knows coroutines by their abstract type


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
