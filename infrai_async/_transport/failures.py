"""The errors of aiohttp and the operating system, mapped to ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final, TypeVar

import aiohttp
from aiohttp import http_exceptions

from infrai_async._protocol.config import with_brackets
from infrai_async._transport.connector import CONNECT_SECONDS, LONGEST_FIELD
from infrai_async._transport.tls import as_tls_error
from infrai_async.errors import ConnectError, TransportError, without_frames

_Mapped = TypeVar("_Mapped", bound=TransportError)


def as_transport_error(
    error: aiohttp.ClientError | OSError, address: str = "the service"
) -> tuple[TransportError, bool]:
    """Map an error of aiohttp to ours, and return also whether it is certain that nothing was sent.

    The texts of aiohttp and its parser are not passed on: they may quote the response, the URL of a proxy or the
    request. Only an error of the operating system is chained, without the frames that it passed through.

    Args:
        error: the error of aiohttp or of the operating system.
        address: host and port of the service, for the message.
    """
    match error:
        case aiohttp.ClientHttpProxyError():
            advice = ": check the user and the password in the proxy's URL" if error.status == 407 else ""
            return ConnectError(f"cannot connect to {address}: the proxy refused (HTTP {error.status}){advice}"), True
        case aiohttp.ClientProxyConnectionError():
            proxy = f"{with_brackets(error.host)}:{error.port}"
            return ConnectError(f"cannot connect to the proxy {proxy}: {_reason(error.os_error)}"), True
        case aiohttp.InvalidURL():
            return ConnectError("cannot connect: the URL of base_url or proxy is not valid"), True
        case aiohttp.ClientConnectorCertificateError():
            tls: Exception = error.certificate_error
            return _caused_by(as_tls_error(error.certificate_error, error.host, error.port), tls), True
        case aiohttp.ClientConnectorSSLError():
            return _caused_by(as_tls_error(error.os_error, error.host, error.port), error.os_error), True
        case aiohttp.ClientConnectorError():
            peer = f"{with_brackets(error.host)}:{error.port}"
            refused = ConnectError(f"cannot connect to {peer}: {_reason(error.os_error)}")
            return _caused_by(refused, error.os_error), True
        case aiohttp.ConnectionTimeoutError():
            return ConnectError(f"cannot connect to {address}: no connection within {CONNECT_SECONDS:g} s"), True
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return TransportError(f"{_malformed(error)} ({address})"), False
    broken = TransportError(f"{_how_it_broke(error)} ({address})")
    number = error.errno if isinstance(error, OSError) else None
    return _caused_by(broken, OSError(number, os.strerror(number))) if number else broken, False


def _reason(error: OSError) -> str:
    """Return why a connection could not be made, without the numbers and addresses around it."""
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__


def _how_it_broke(error: aiohttp.ClientError | OSError) -> str:
    match error:
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before the response arrived"
        case aiohttp.ServerTimeoutError():
            return "the connection timed out before the response arrived"
        case OSError(errno=int(number)) if number > 1:  # errors of TLS have the number 1
            return f"the connection broke before the response arrived: {os.strerror(number)}"
    return f"the connection broke before the response arrived: {type(error).__name__}"


def _malformed(error: BaseException) -> str:
    """Say what is wrong with a response, by the type of the parser's error and not by its text."""
    causes: list[BaseException | None] = [error]
    while (last := causes[-1]) is not None:
        cause = last.__cause__ or last.__context__
        causes.append(None if cause in causes else cause)
    kinds = {type(cause): cause for cause in causes}
    if (long := kinds.get(http_exceptions.LineTooLong)) is not None:
        limit = long.args[1]
        hint = "" if limit == LONGEST_FIELD else ": create the borrowed session with a larger max_field_size"
        return f"a header of the response has more than {limit} bytes{hint}"
    return next((text for kind, text in _MALFORMED.items() if kind in kinds), "the response is not valid HTTP")


_MALFORMED: Final[Mapping[type[BaseException], str]] = {
    http_exceptions.BadStatusLine: "the response is not valid HTTP: it does not begin with a status line",
    http_exceptions.InvalidHeader: "the response is not valid HTTP: a header is malformed",
    http_exceptions.ContentLengthError: "the connection broke before the end of the response",
    http_exceptions.TransferEncodingError: "the response broke off, or its chunks are malformed",
    http_exceptions.ContentEncodingError: "the response cannot be decompressed",
    aiohttp.ClientPayloadError: "the connection broke before the end of the response",
}


def _caused_by(mapped: _Mapped, cause: Exception) -> _Mapped:
    mapped.__cause__ = without_frames(cause)
    return mapped
