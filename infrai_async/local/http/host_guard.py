"""Which names a request may address the gateway by.

A page of any web site can have its own name resolve to 127.0.0.1 and then talk to the gateway as its own origin (DNS
rebinding); the name that the browser sends in ``Host`` gives it away.
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
    """Return the name of a ``Host`` header or an address: no port, no brackets, in lower case; of neither, nothing."""
    name = host.strip().lower()
    if name.count(":") > 1 and not name.startswith("["):
        return name  # an address of IPv6, as it is given to listen on
    found = _HOST.fullmatch(name)
    return (found[1] or found[2]).removesuffix(".") if found else ""


def is_edge(name: str) -> bool:
    """Say whether a name is a distribution's."""
    return name.endswith(_EDGE) and name != _EDGE


def check_peer(address: str | None, loop: str | None = None) -> None:
    """Let in only who asks from this machine.

    Args:
        address: where the connection comes from.
        loop: the header ``CDN-Loop``: an edge, another gateway's too, is on this machine and asks for whoever asks it.

    Raises:
        RequestRefused: 403, the request comes from elsewhere.
    """
    if loop is not None or not _is_loopback(address or ""):
        raise RequestRefused(403, "FORBIDDEN", "this is for whoever sits at the gateway's own machine alone")


class HostGuard:
    """Knows the names: loopback ones, a distribution's, and those that it was given."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = (frozenset(map(host_name, allowed)) | {"localhost"}) - {""}

    def check(self, host: str | None) -> str:
        """Return the name that a request addresses.

        Raises:
            RequestRefused: 421, it is not one of ours.
        """
        name = host_name(host or "")
        if name in self._allowed or is_edge(name) or _is_loopback(name):
            return name
        raise RequestRefused(
            421,
            "MISDIRECTED_REQUEST",
            "the gateway does not answer to this host name",
            hint="address it by a loopback name, or allow the name with --allow-host",
        )


def _is_loopback(name: str) -> bool:
    try:
        return unwrapped(ipaddress.ip_address(name)).is_loopback
    except ValueError:
        return False


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that one of IPv6 stands for, if it does."""
    return getattr(address, "ipv4_mapped", None) or address
