"""Settings as users write them: the base URL, and what surrounds a value that was copied from somewhere.

A traceback may show the local variables of its frames. Functions that read secrets therefore return a fault to a caller
that raises it and holds no secret itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar
from urllib.parse import urlsplit

from infrai_async.errors import ConfigurationError

T = TypeVar("T")

DEFAULT_BASE_URL: Final = "https://api.infrai.cc"
# White space, and characters that are invisible: byte order marks of editors, zero-width characters of web pages.
_around: Final = re.compile(r"\A[\s\ufeff\u200b\u2060]+|[\s\ufeff\u200b\u2060]+\Z")
_quoted: Final = re.compile(r"""\A(["'])(.*)\1\Z""", re.DOTALL)


class Secret(str):
    """A string whose repr hides its text, so that tracebacks with local variables do not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class _Refused:
    """Stands for a setting of a wrong type, which is about to be refused and may contain a secret all the same."""


def hidden(value: T) -> T | Secret:
    """Return a setting that may contain a secret as one whose repr does not show it: a string as a ``Secret``."""
    if isinstance(value, str):
        return Secret(value)
    if value is None or callable(value) or isinstance(value, Enum):  # which mean something else than a string
        return value
    return _Refused()  # type: ignore[return-value] # the caller refuses it


def hidden_headers(headers: T) -> T:
    """Return headers whose values are ``hidden``; what is no mapping is about to be refused."""
    if isinstance(headers, Mapping):
        return {name: hidden(value) for name, value in headers.items()}  # type: ignore[return-value] # a mapping too
    return hidden(headers)  # type: ignore[return-value] # the caller refuses it


def without_quotes(text: str) -> str:
    """Return a value without white space, invisible characters and one pair of quotation marks around it.

    Variables keep their quotation marks when a program other than a shell reads the file that sets them.
    """
    bare = _around.sub("", text)
    quoted = _quoted.match(bare)
    return _around.sub("", quoted[2]) if quoted else bare


def base_url(given: str | None, environment: Mapping[str, str], *, allow_http: bool) -> str:
    """Return the base URL without ``/v1`` and without a trailing slash (D1).

    Args:
        given: the client's argument. If it is ``None``, ``INFRAI_BASE_URL`` is used, then the service's own address.
        environment: the environment variables.
        allow_http: whether plain HTTP to another machine is allowed.

    Raises:
        ConfigurationError: the URL is not an http or https URL, contains credentials, or would send the API key over
            plain HTTP.
    """
    name = "base_url" if given is not None else "INFRAI_BASE_URL"
    text = hidden(given if given is not None else environment.get("INFRAI_BASE_URL") or DEFAULT_BASE_URL)
    url = _normal_form(text, name, hidden(environment.get("INFRAI_API_KEY", "")), allow_http=allow_http)
    del given, environment, text
    if isinstance(url, ConfigurationError):
        raise url
    return url


def _normal_form(text: str, name: str, api_key: str, *, allow_http: bool) -> str | ConfigurationError:
    try:
        text = without_quotes(text)
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError):
        return ConfigurationError(f"{name} is not a URL: it must look like {DEFAULT_BASE_URL}")
    if not text.isascii() or not text.isprintable() or " " in text:
        return ConfigurationError(
            f"{name} has characters that are not allowed in a URL: percent-encode them, "
            "and write a host name with other letters in its xn-- form"
        )
    if parts.scheme not in ("http", "https") or not host:
        may_be_secret = not {"@", "?", "#"}.isdisjoint(text) or "ifr_" in text or text == api_key != ""
        shown = "" if may_be_secret else f", not {str(text)!r}"
        return ConfigurationError(f"{name} must look like {DEFAULT_BASE_URL}{shown}")
    if parts.username is not None or parts.query or parts.fragment:
        return ConfigurationError(f"{name} must have no user, password, query or fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        shown = "another machine" if "ifr_" in host else host
        return ConfigurationError(
            f"{name} would send the API key over plain http to {shown}: use https, or pass allow_http=True "
            "if you trust the network"
        )
    origin = f"{parts.scheme}://{with_brackets(host)}" + (f":{port}" if port is not None else "")
    return origin + parts.path.rstrip("/").removesuffix("/v1").rstrip("/")


def with_brackets(host: str) -> str:
    """Return a host as it is written in front of a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_and_port(url: str) -> str:
    """Return the host and the port of an http or https URL, without what may be secret or long."""
    parts = urlsplit(url)
    return f"{with_brackets(parts.hostname or '')}:{parts.port or default_port(parts.scheme)}"


def default_port(scheme: str) -> int:
    """Return the port of URLs that name none."""
    return 443 if scheme == "https" else 80


def is_loopback(host: str) -> bool:
    """Return whether a host name or address refers to this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
