"""Connections: tuned sockets, knowledge of what was sent, and aiohttp's errors in our words."""

from __future__ import annotations

import socket
import ssl
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import attrs

from infrai_async.errors import ConnectError, TransportError

CONNECT_SECONDS: Final = 10.0  # for one attempt's connection, TLS included; the call's own time bounds the whole
_RECEIVE_BYTES: Final = 64 * 2**10
_sighting: Final[ContextVar[Sighting]] = ContextVar("infrai_async_sighting")


@attrs.define(eq=False)
class Sighting:
    """What was seen of one call's connections: tells what was sent from what never left."""

    connected: bool = False
    opened: int = 0
    reused: int = 0
    fresh: bool = False

    def watch(self, *, connected: bool) -> None:
        """Have this task's next connection reported here; ``connected`` is what to believe until then."""
        self.connected, self.fresh = connected, False
        _sighting.set(self)


class _Socket(socket.socket):
    """Asks for less at once than asyncio does: its 256 KiB buffer, made anew for each read, costs 16 % of a call."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return super().recv(min(bufsize, _RECEIVE_BYTES), flags)


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    sighting = _sighting.get(None)
    if sighting is not None:
        sighting.fresh = True
    return _Socket(*address[:3])


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector without limits of its own (the pool counts), which reports what it does."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(limit=0, ssl=True if context is None else context, socket_factory=_make_socket)

    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        """Return a connection, and note whether it is a new one: from here on bytes may leave."""
        connection = await super().connect(*args, **kwargs)
        sighting = _sighting.get(None)
        if sighting is not None:
            sighting.connected = True
            if sighting.fresh:
                sighting.opened += 1
            else:
                sighting.reused += 1
        return connection


def environment_proxy(origin: str) -> str | None:
    """Return the proxy that the environment names for the service, as the standard library reads it.

    aiohttp's own ``trust_env`` also takes credentials from ``.netrc``, which exclude our ``Authorization``.
    """
    parts = urlsplit(origin)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def as_transport_error(error: aiohttp.ClientError | OSError) -> tuple[TransportError, bool]:
    """Return aiohttp's error as ours, and whether it is certain that nothing was sent."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # Not chained: its text holds the proxy's URL, which may hold a password.
        return ConnectError(f"the proxy refused the connection (HTTP {error.status})"), True
    if isinstance(error, aiohttp.ClientResponseError):
        # Not chained: it holds the request's headers, and so the key.
        return TransportError(f"the answer is not HTTP: {error.message}"), False
    kind: type[TransportError] = TransportError
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        kind = ConnectError
    mapped = kind(str(error) or type(error).__name__)
    mapped.__cause__ = error
    return mapped, kind is ConnectError
