"""TLS: the context that clients share, and why no trusted connection could be made."""

from __future__ import annotations

import functools
import os
import ssl
import sys
from pathlib import Path
from typing import Final, TypeAlias

from infrai_async._protocol.config import with_brackets
from infrai_async._protocol.credentials import reason_of
from infrai_async.errors import ConnectError

_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # which OpenSSL reads when a context is made
_EXPIRED: Final = frozenset({9, 10})  # OpenSSL's codes: not yet valid, has expired
_MISMATCH: Final = frozenset({62, 64})  # OpenSSL's codes: another host name, another IP address

_Authorities: TypeAlias = tuple[tuple[str | None, float], ...]


def _authorities() -> _Authorities:
    """Return where OpenSSL looks for certificate authorities, and when those places last changed."""
    return tuple((path, _changed_at(path)) for path in map(os.environ.get, _VARIABLES))


def _changed_at(path: str | None) -> float:
    try:
        return os.stat(path).st_mtime if path else 0.0
    except (OSError, ValueError):
        return 0.0


def _aiohttp_came_with_us() -> bool:
    """Return whether aiohttp was imported by this package a moment ago, not by another one in another environment."""
    # Modules are in the order in which their import ended, the unfinished one of the client where it began.
    order = list(sys.modules)
    client = "infrai_async._client"
    return client in order and order.index(client) < order.index("aiohttp")


_at_import: Final = _authorities()
_of_aiohttp: Final = _at_import if _aiohttp_came_with_us() else None


def tls_context(origin: str, given: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return the TLS context for connections to a service; ``None`` stands for the one that aiohttp has made.

    aiohttp makes its context when it is imported, which takes long. A program may set ``SSL_CERT_FILE`` or
    ``SSL_CERT_DIR`` later, for example from a file of variables; then another context is made, which clients share.

    Args:
        origin: the base URL of the service.
        given: the client's argument ``ssl``, which is used as it is.
    """
    if given is not None or not origin.startswith("https:"):
        return given
    authorities = _authorities()
    never_set = authorities == _at_import and not any(path for path, _ in authorities)
    return None if never_set or authorities == _of_aiohttp else _shared_context(authorities)


@functools.lru_cache(maxsize=1)
def _shared_context(_: _Authorities) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def as_tls_error(error: Exception, host: str, port: int | None) -> ConnectError:
    """Return our error for a TLS handshake that failed; another attempt would fail in the same way.

    Args:
        error: the error of the ``ssl`` module.
        host: the host of the service or of the proxy.
        port: its port.
    """
    peer = f"{with_brackets(host)}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        failed = ConnectError(f"cannot connect to {peer}: its certificate is not trusted: {_why_untrusted(error)}")
    else:
        reason = (getattr(error, "reason", None) or type(error).__name__).replace("_", " ").lower()
        failed = ConnectError(
            f"cannot connect to {peer}: the TLS handshake failed ({reason}): check that this port speaks https, "
            "and the TLS versions and certificates of ssl="
        )
    # A server that is restarted closes connections in the middle of a handshake.
    failed._repeatable = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    return failed


def _why_untrusted(error: ssl.SSLCertVerificationError) -> str:
    reason = getattr(error, "verify_message", None) or "it cannot be verified"
    code = getattr(error, "verify_code", 0)
    if code in _MISMATCH:
        return f"{reason}: check the host in base_url, or pass an ssl= context for that certificate"
    if code in _EXPIRED:
        return f"{reason}: check this machine's clock; only an ssl= context of your own can allow such a certificate"
    faults = "".join(f". {fault}" for fault in map(_fault_of_variable, _VARIABLES) if fault)
    return (
        f"{reason}: pass ssl=ssl.create_default_context(cafile=...) with the authority that issued it, or name its "
        f"file in SSL_CERT_FILE before the client is created{faults}"
    )


def _fault_of_variable(name: str) -> str | None:
    """Return why a variable adds no certificate authority, which OpenSSL itself does not say."""
    path = os.environ.get(name)
    if not path:
        return None
    try:
        if name == "SSL_CERT_DIR":
            return None if Path(path).is_dir() else f"{name} names {path}, which is not a directory"
        with open(path, "rb"):
            pass
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return f"{name} names {path}, which contains no certificates in PEM format"
    except OSError as failed:
        return f"{name} names {path}, which cannot be read ({reason_of(failed)})"
    return None
