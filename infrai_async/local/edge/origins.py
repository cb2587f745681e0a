"""Requests to origins: which addresses are allowed, which headers are sent, and how failures are reported.

The owner of a distribution chooses the origin's address, so the edge must not be usable for request forgery against
this machine or its cloud: link-local, metadata and the gateway's own addresses are forbidden. The check applies to the
resolved address of every connection, because a host name can resolve to anything.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import unquote

import aiohttp
from aiohttp.client import _RequestContextManager
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from infrai_async.local._errors import RequestRefused, invalid
from infrai_async.local.edge.policy import Headers
from infrai_async.local.http.host_guard import Address, unwrapped

CDN_ID: Final = f"infrai-{secrets.token_hex(8)}"
"""The identifier of this process in ``CDN-Loop`` (RFC 8586)."""
VIA: Final = "1.1 infrai-edge"
FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""The exceptions that a request to an origin can raise; an invalid host name raises ``ValueError``."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10, sock_connect=10, sock_read=30)
_CONNECTIONS: Final = 256
_LONGEST_FIELD: Final = 2**15 + 2**8  # bytes of a header field of a response: a value of 32 KiB, and its name
_FORBIDDEN: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "224.0.0.0/3",
            "::/128",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2001::/32",
            "2002::/16",
            "fd00:ec2::/32",
            "fe80::/10",
            "ff00::/8",
        ),
    )
)
"""Link-local, cloud metadata and unusable addresses, and IPv6 ranges that embed an IPv4 address (NAT64, 6to4 etc.)."""
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_SENT_ON: Final = frozenset(
    {"host", "expect", "cdn-loop", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
)
_OURS_TO_ANSWER: Final = frozenset(
    {
        "cache-control",
        "content-length",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
    }
)
_logger = logging.getLogger(__name__)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DOTS: Final = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\]|$)")


class Forbidden(OSError):
    """The address of an origin is forbidden."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the edge does not connect to this address")


def is_forbidden(host: str, port: int, owned: Iterable[int]) -> bool:
    """Return whether the edge must not connect to an address; ``owned`` are the gateway's ports on this machine."""
    address = unwrapped(ip_address(host.partition("%")[0]))
    if any(address.version == network.version and address in network for network in _FORBIDDEN):
        return True
    return port in owned and _is_of_this_machine(address)


def _is_of_this_machine(address: Address) -> bool:
    """Return whether an address belongs to this machine, which is the case if a socket can be bound to it."""
    if address.is_loopback:
        return True
    with suppress(OSError), socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:
        probe.bind((str(address), 0))
        return True
    return False


def origin_url(origin: str, target: str) -> URL:
    """Return the URL of a target at a distribution's origin; an origin without a scheme uses ``http``.

    Raises:
        RequestRefused: 502, if the origin is not the address of a web server.
    """
    try:
        base = URL(origin if "://" in origin else f"http://{origin}", encoded=True)
        port = base.port
    except ValueError:
        base, port = URL(), None
    host = base.raw_host or ""
    extra = base.raw_query_string or base.raw_fragment or base.raw_user or base.raw_password
    if (
        base.scheme not in ("http", "https")
        or port is None
        or extra
        or not re.fullmatch(r"[\x21-\x7e]+", host)
        or not re.search(r"[^.\W]", host)
    ):
        raise RequestRefused(
            502,
            "CDN_ORIGIN_INVALID",
            "the distribution's origin is not the address of a web server",
            hint="set origin to a host or to http(s)://host[:port][/prefix]",
            retryable=False,
        )
    path, _, query = target.partition("?")
    return URL.build(
        scheme=base.scheme,
        authority=base.raw_authority,
        path=base.raw_path.rstrip("/") + path or "/",
        query_string=query,
        encoded=True,
    )


def check_target(target: str) -> str:
    """Return a path and query unchanged, if they can be forwarded to an origin.

    Raises:
        RequestRefused: 400, if the path is malformed or could lead outside the origin's prefix.
    """
    path = target.partition("?")[0]
    if not target.isascii() or not target.isprintable() or " " in target or _DOTS.search(unquote(path)):
        raise invalid("the path cannot be forwarded to an origin", path="ASCII, without segments '.' and '..'")
    return target


def end_to_end(headers: Headers, without: Iterable[str] = ()) -> CIMultiDict[str]:
    """Return the end-to-end headers (RFC 9110, section 7.6.1), with control characters replaced."""
    named = {name.strip().lower() for line in headers.getall("Connection", ()) for name in line.split(",")}
    skipped = _HOP_BY_HOP | named | frozenset(without)
    kept = ((name, value) for name, value in headers.items() if name.lower() not in skipped)
    return CIMultiDict((name, _CONTROL.sub(" ", value)) for name, value in kept)


def loops(headers: Headers) -> bool:
    """Return whether a request has already passed through this edge."""
    passed = (one.partition(";")[0].strip() for line in headers.getall("CDN-Loop", ()) for one in line.split(","))
    return CDN_ID in passed


def request_headers(headers: Headers, client: str | None, *, cached: bool) -> CIMultiDict[str]:
    """Return the headers to send to an origin.

    For a ``cached`` request they omit conditions, ranges and cache directives, since the edge answers those itself from
    the complete response.
    """
    sent = end_to_end(headers, _NOT_SENT_ON | (_OURS_TO_ANSWER if cached else frozenset()))
    sent["CDN-Loop"] = ", ".join((*headers.getall("CDN-Loop", ()), CDN_ID))
    sent["Via"] = ", ".join((*headers.getall("Via", ()), VIA))
    sent["X-Forwarded-For"] = ", ".join((*headers.getall("X-Forwarded-For", ()), client or "unknown"))
    sent["X-Forwarded-Host"] = headers.get("Host", "")
    sent["X-Forwarded-Proto"] = headers.get("X-Forwarded-Proto", "http")
    return sent


def as_refusal(error: BaseException) -> RequestRefused:
    """Return the error for an origin's failure; it names the kind of failure and no internal details."""
    _logger.info("an origin failed (%s)", type(error).__name__)
    if isinstance(getattr(error, "os_error", None), Forbidden):
        return RequestRefused(
            502,
            "CDN_ORIGIN_FORBIDDEN",
            "the edge must not connect to the address of this origin",
            hint="use a web server other than the gateway, and no link-local or cloud metadata address",
            retryable=False,
        )
    if isinstance(error, TimeoutError):
        return RequestRefused(504, "CDN_ORIGIN_TIMEOUT", "the origin took too long to respond")
    return RequestRefused(502, "CDN_ORIGIN_UNREACHABLE", "the origin could not be reached or sent an invalid response")


class _Connection(ResponseHandler):
    """A connection that forgives an origin for bytes after the end of its response."""

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; the head apart from the rest, as an error in the rest must not lose the response."""
        end = data.find(b"\r\n\r\n") + 4
        if 4 <= end < len(data):
            super().data_received(data[:end])
            data = data[end:]
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the connection; a body that has arrived completely stays readable, whatever came after it."""
        if self._payload is not None and self._payload.is_eof():
            self._payload = self._parser = None
        super().connection_lost(exc)


class Origins:
    """The connections to all origins.

    Args:
        owned: returns the gateway's own ports, to which the edge must not connect.
    """

    def __init__(self, owned: Callable[[], Iterable[int]]) -> None:
        self._owned = owned
        self._session: aiohttp.ClientSession | None = None

    def request(
        self, method: str, url: URL, headers: Mapping[str, str], body: asyncio.StreamReader | Any = None
    ) -> _RequestContextManager:
        """Send a request to an origin; its response is neither decompressed nor are redirects followed."""
        if self._session is None:
            self._session = self._open()
        return self._session.request(method, url, headers=headers, data=body, allow_redirects=False)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        # Every request gets a connection of its own. What an origin sends unasked on an idle one would become the
        # answer to the next request, and a request with a body that meets one that is just closing cannot be repeated.
        connector = aiohttp.TCPConnector(
            limit=_CONNECTIONS,
            force_close=True,
            resolver=aiohttp.ThreadedResolver(),
            use_dns_cache=False,
            socket_factory=self._socket,
        )
        # aiohttp has no public way to choose the class of its connections; tests/gateway/edge guards this.
        connector._factory = partial(_Connection, loop=asyncio.get_running_loop())  # type: ignore[assignment]
        return aiohttp.ClientSession(
            connector=connector,
            max_line_size=_LONGEST_FIELD,
            max_field_size=_LONGEST_FIELD,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            timeout=_TIMEOUT,
            trust_env=False,
        )

    def _socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, (host, port, *_) = address
        if is_forbidden(host, port, self._owned()):
            raise Forbidden
        return socket.socket(family, kind, protocol)
