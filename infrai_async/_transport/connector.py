"""Connections: tuned sockets, traces of what was sent, proxies, and the mapping of aiohttp's errors to ours."""

from __future__ import annotations

import asyncio
import functools
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import aiohttp
from aiohttp.client_proto import ResponseHandler

from infrai_async._protocol import proxies

if TYPE_CHECKING:
    from aiohttp.typedefs import LooseHeaders

    from infrai_async._transport.headers import HeaderTemplate
    from infrai_async._transport.stats import Counters

CONNECT_SECONDS: Final = 10.0  # for one connection, including TLS; the call's deadline limits the whole
LONGEST_FIELD: Final = 2**15 + 2**8  # bytes of a header field of a response: a value of 32 KiB, and its name
_RECEIVE_BYTES: Final = 64 * 2**10
trace_of_attempt: Final[ContextVar[ConnectionTrace]] = ContextVar("infrai_async_trace_of_attempt")
"""The trace of the current attempt, for callbacks of aiohttp, which passes nothing of ours to them."""

_recv: Final = socket.socket.recv  # looked up once: ``super()`` would take a third of the time of these two methods
_send: Final = aiohttp.ClientRequest.send


class ConnectionTrace:
    """A trace of one attempt's connection, which shows whether any bytes may have been sent.

    Attributes:
        connected: whether any bytes may have been sent; always true for a borrowed session, which is not traced.
        headers: the template of the request's headers.
        idempotency_key: the idempotency key that is added to them; ``None`` if there is none.
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
        """Record that a new connection is opened for the attempt."""
        self._fresh = True

    def uses(self, transport: asyncio.Transport | None) -> None:
        """Record the connection of the attempt; from now on bytes may be sent."""
        self.connected, self._transport = True, transport
        if self._fresh:
            self._counters.connections_opened += 1
        else:
            self._counters.connections_reused += 1

    def abort(self) -> None:
        """Abort the connection; a graceful close over TLS would wait for the peer and outlive the session."""
        if self._transport is not None:
            self._transport.abort()


class _Socket(socket.socket):
    """Reads smaller chunks than asyncio, whose new buffer of 256 KiB for each read takes 16 % of a call's time."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return _recv(self, bufsize if bufsize < _RECEIVE_BYTES else _RECEIVE_BYTES, flags)


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    if (trace := trace_of_attempt.get(None)) is not None:
        trace.opens()
    return _Socket(*address[:3])


class _Protocol(ResponseHandler):
    """A connection that is used again only if nothing has arrived on it since the last response.

    It relies on attributes that aiohttp keeps to itself; ``tests/transport/test_reuse.py`` guards them.
    """

    _poll: Callable[[int], object] | None = None

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading if it was paused; aiohttp calls this twice for every body, which takes 2 % of a call."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def is_connected(self) -> bool:
        """Return whether an idle connection can be used again.

        Bytes that nobody asked for would be taken for the response to the next request, and every later call on the
        connection would get the response to the one before it (RFC 9112, section 9.2).
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._buffer:
            return False
        try:
            # The next request gets a parser of its own, which does not know that this one holds half a message.
            parser = self._parser
            if parser is not None and parser.feed_eof() is not None:
                return False
        except Exception:  # noqa: BLE001 - that half cannot be parsed
            return False
        # The socket may hold bytes, or the end of the stream, that a busy event loop has had no time to read.
        poll = self._poll
        if poll is None:
            poll = self._poll = _watch(transport.get_extra_info("socket"))
        return not poll(0)


def _watch(connection: socket.socket) -> Callable[[int], object]:
    """Return a function that tells at once whether a connection can be read from."""
    if not hasattr(select, "poll"):  # Windows; elsewhere ``select`` fails for high descriptors
        return lambda _: select.select([connection.fileno()], [], [], 0)[0]
    watcher = select.poll()
    watcher.register(connection.fileno(), select.POLLIN)
    return watcher.poll


def make_connector(context: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """Return a connector without a connection limit, because the pool limits the number of calls."""
    connector = aiohttp.TCPConnector(limit=0, ssl=True if context is None else context, socket_factory=_make_socket)
    # aiohttp has no public way to choose the class of its connections; ``tests/transport/test_reuse.py`` guards this.
    connector._factory = functools.partial(_Protocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return connector


class TracedRequest(aiohttp.ClientRequest):
    """An aiohttp request that reports its connection and can use prepared headers.

    aiohttp builds the headers of a request by these two methods, in this order. After both have run for one request,
    later requests copy their result from a template. With a version of aiohttp that does not call them, all headers
    are built by aiohttp as usual.
    """

    _learner: HeaderTemplate | None  # the template that stores the headers once they are built

    def update_headers(self, headers: LooseHeaders | None) -> None:
        """Use the prepared headers, or build them."""
        trace = trace_of_attempt.get(None)
        ready = None if trace is None or headers else trace.headers.completed(trace.idempotency_key)
        if ready is not None:
            self._learner = None
            self.headers = ready
        else:
            self._learner = None if trace is None else trace.headers
            super().update_headers(headers)

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add aiohttp's own headers unless they are prepared, and store the result in the template."""
        if self._learner is not None:
            super().update_auto_headers(skip_auto_headers)
            self._learner.learn(self.headers)

    def send(self, conn: aiohttp.connector.Connection) -> CoroutineType[Any, Any, aiohttp.ClientResponse]:
        """Send the request.

        It is a plain method because each further coroutine adds a frame to every suspension of the call.
        """
        if (trace := trace_of_attempt.get(None)) is not None:
            trace.uses(conn.transport)
        return _send(self, conn)  # type: ignore[return-value] # mypy infers the abstract type of a coroutine


def environment_proxy(origin: str) -> str | None:
    """Return the proxy for the service from the environment; without any variable, from the system's settings.

    aiohttp's own ``trust_env`` is not used, because it also reads ``.netrc``, which conflicts with our
    ``Authorization`` header.

    Raises:
        ConfigurationError: the variable or the setting is not the URL of an HTTP proxy.
    """
    if getproxies_environment():
        return proxies.environment_proxy(origin, os.environ)
    parts = urlsplit(origin)
    system = getproxies().get(parts.scheme)  # macOS and Windows have such settings
    if not system or proxy_bypass(parts.hostname or ""):
        return None
    return proxies.check_proxy(proxies.with_scheme(system), "the proxy in the system's settings")
