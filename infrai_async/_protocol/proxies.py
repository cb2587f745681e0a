"""Proxies: which one the environment names for a URL, and which URLs it exempts.

The rules are those of ``urllib.request``: lower-case variables win, and ``HTTP_PROXY`` does not count in a CGI program.
Added are ``ALL_PROXY``, and the forms of ``no_proxy`` that other programs know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from infrai_async._protocol.config import Secret, default_port, without_quotes
from infrai_async.errors import ConfigurationError

_EXAMPLE: Final = "the URL of an HTTP proxy, such as http://proxy.example:3128"
_host_and_port: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*):([0-9]{1,5})").fullmatch


def proxy_variable(scheme: str, environment: Mapping[str, str]) -> tuple[str, Secret] | None:
    """Return the name and the value of the variable that names the proxy for URLs of a scheme; ``None`` without one."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        # A CGI program gets the header "Proxy" of whoever calls it as HTTP_PROXY.
        forged = name == "http_proxy" and "REQUEST_METHOD" in environment
        for spelling in (name, *(() if forged else (name.upper(),))):
            if spelling in environment:
                if value := without_quotes(environment[spelling]):
                    return spelling, Secret(value)
                break  # an empty lower-case variable switches off the upper-case one
    return None


def check_proxy(proxy: object, name: str) -> Secret:
    """Return the URL of a proxy after checking it; the error never shows its user and password.

    Args:
        proxy: the URL, with its scheme.
        name: the argument or the variable that it comes from.

    Raises:
        ConfigurationError: it is not the URL of an HTTP proxy.
    """
    url = Secret(proxy if isinstance(proxy, str) else "")
    del proxy
    if (fault := _fault_of(url)) is not None:
        raise ConfigurationError(f"{name} must be {_EXAMPLE}: {fault}")
    return url


def _fault_of(url: str) -> str | None:
    """Return what is wrong with the URL of a proxy, without quoting a secret; ``None`` if it is usable."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "it is not a URL (special characters of a user or a password are percent-encoded)"
    if parts.scheme.startswith("socks"):
        return f"SOCKS ({parts.scheme}://) is not supported, only proxies that speak HTTP are"
    if "://" not in url or parts.scheme not in ("http", "https"):
        return "it does not begin with http:// or https://"
    if not host or port == 0 or any(char.isspace() or not char.isprintable() for char in url):
        return "it does not name a host"
    if parts.query or parts.fragment or "@" in parts.path:
        return "special characters of its user or password must be percent-encoded"
    return _fault_of_credentials(parts)


def _fault_of_credentials(parts: SplitResult) -> str | None:
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user:
        return "its user must not contain a colon"
    try:
        f"{user}{password}".encode("latin-1")
    except UnicodeEncodeError:
        return "its user and password must consist of Latin-1 characters"
    return None


def is_exempt(host: str, port: int, environment: Mapping[str, str]) -> bool:
    """Return whether ``no_proxy`` exempts a host and a port from the proxy.

    Its entries are separated by commas or spaces. An entry is a host name, which stands for its subdomains too, an IP
    address, or a network such as ``10.0.0.0/8``; each may have a port. ``*`` stands for every host.
    """
    entries = environment["no_proxy"] if "no_proxy" in environment else environment.get("NO_PROXY", "")
    host = _canonical(host)
    address = _address(host)
    return any(_matches(entry, host, address, port) for entry in re.split(r"[,\s]+", without_quotes(entries)) if entry)


def _matches(entry: str, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    if (parts := _host_and_port(entry)) is not None:
        entry = parts[1]
        if int(parts[2]) != port:
            return False
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _contains(entry.replace("[", "").replace("]", ""), address)
    entry = _canonical(entry.removeprefix("*"))
    if address is not None:
        return _address(entry) == address
    return entry != "" and (host == entry or host.endswith(f".{entry}"))


def _contains(network: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(network, strict=False)
    except ValueError:
        return False


def _canonical(host: str) -> str:
    """Return a host name or address in the form in which names are compared."""
    host = host.strip("[]").strip(".").lower()
    if host.isascii():
        return host
    from yarl import URL  # which encodes names as it will for the connection; imported here because few names need it

    try:
        return URL.build(scheme="http", host=host).raw_host or host
    except ValueError:
        return host


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def environment_proxy(origin: str, environment: Mapping[str, str]) -> Secret | None:
    """Return the URL of the proxy that the environment names for a URL; ``None`` if it names none or exempts the URL.

    Raises:
        ConfigurationError: the variable does not contain the URL of an HTTP proxy.
    """
    parts = urlsplit(origin)
    found = proxy_variable(parts.scheme, environment)
    exempt = is_exempt(parts.hostname or "", parts.port or default_port(parts.scheme), environment)
    del environment
    if found is None or exempt:
        return None
    name, proxy = found
    return check_proxy(with_scheme(proxy), name)


def with_scheme(proxy: str) -> Secret:
    """Return a proxy's URL; variables often hold a host and a port alone."""
    return Secret(proxy if "://" in proxy else f"http://{proxy}")
