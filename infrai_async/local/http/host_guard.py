"""Check the host names and peers of requests.

Any web site can make its own host name resolve to 127.0.0.1, so that its pages reach the gateway as their own origin
(DNS rebinding). The ``Host`` header then still has the site's name, so only known names are accepted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from infrai_async.local._errors import RequestRefused

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_EDGE: Final = ".edge.localhost"
_HOST: Final = re.compile(r"(?:\[([^]]+)]|([^][:]*))(?::[0-9]*)?")


def host_name(host: str) -> str:
    """Return the host of a ``Host`` header or an address in lower case, without port and brackets; "" if malformed."""
    name = host.strip().lower()
    if name.count(":") > 1 and not name.startswith("["):
        return name  # an IPv6 address without brackets, as given to listen on
    found = _HOST.fullmatch(name)
    return (found[1] or found[2]).removesuffix(".") if found else ""


def is_edge(name: str) -> bool:
    """Return whether a host name belongs to a distribution."""
    return name.endswith(_EDGE) and name != _EDGE


def is_here(name: str) -> bool:
    """Return whether a host name refers to this machine alone, so that it helps nobody elsewhere."""
    return name == "localhost" or is_edge(name) or _is_loopback(name)


def check_peer(address: str | None, loop: str | None = None) -> None:
    """Accept only requests from this machine.

    Args:
        address: the peer of the connection.
        loop: the ``CDN-Loop`` header. A request with it came through an edge, which runs on this machine but acts for
            a client that may be anywhere.

    Raises:
        RequestRefused: 403, if the request comes from elsewhere.
    """
    if loop is not None or not _is_loopback(address or ""):
        raise RequestRefused(403, "FORBIDDEN", "this is available only from the machine that runs the gateway")


def check_own_page(site: str | None, origin: str | None, host: str) -> None:
    """Check that a request that needs no key comes from a page of the gateway, or from something other than a browser.

    Any page on the web can make a browser send requests to this machine.

    Args:
        site: the header ``Sec-Fetch-Site``.
        origin: the header ``Origin``.
        host: the host to which the request went, with its port.

    Raises:
        RequestRefused: 403, if another site's page sent the request.
    """
    ours = (None, f"http://{host}".lower(), f"https://{host}".lower())
    if (origin and origin.lower()) not in ours or site not in (None, "same-origin", "none"):
        raise RequestRefused(
            403,
            "FORBIDDEN",
            "a page of another site sent this request",
            hint="only pages of the gateway itself may do so: open the page in a browser, or use a client",
        )


class HostGuard:
    """Accept loopback names, the host names of distributions, and the given names."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = (frozenset(map(host_name, allowed)) | {"localhost"}) - {""}

    @property
    def names(self) -> frozenset[str]:
        """The given names, besides which only loopback names and those of distributions are accepted."""
        return self._allowed

    def check(self, host: str | None) -> str:
        """Return the host name that a request addresses.

        Raises:
            RequestRefused: 421, if the name is not accepted.
        """
        name = host_name(host or "")
        if name in self._allowed or is_here(name):
            return name
        raise RequestRefused(
            421,
            "MISDIRECTED_REQUEST",
            "the gateway does not answer to this host name",
            hint="use a loopback name, or start the gateway with --allow-host for this name",
        )


def _is_loopback(name: str) -> bool:
    try:
        return unwrapped(ipaddress.ip_address(name)).is_loopback
    except ValueError:
        return False


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address of an IPv4-mapped IPv6 address; other addresses are returned unchanged."""
    return getattr(address, "ipv4_mapped", None) or address
