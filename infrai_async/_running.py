"""The local gateways that run in this process, so that no blocking client waits for one that its own thread runs.

A gateway enters itself here while it serves, and the blocking client looks before it waits; neither imports the other.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias
from urllib.parse import urlsplit

Address: TypeAlias = IPv4Address | IPv6Address

_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
_HANDOVER_SECONDS: Final = 0.5  # how long another thread may take to run a loop that does not run at the moment


class Gateway:
    """A gateway that serves in the event loop of the current thread.

    Args:
        sockets: the addresses that it listens on, as ``socket.getsockname`` gives them.
        names: the host names, besides those of loopback, by which requests may reach it.
        urls: further URLs that lead to it, such as the public one of a proxy.
    """

    def __init__(self, sockets: Iterable[Sequence[object]], names: Iterable[str], urls: Iterable[str]) -> None:
        # A gateway that is dropped without being closed must not be kept alive by its entry here.
        self._loop = weakref.ref(asyncio.get_running_loop())
        self._thread = threading.get_ident()
        self._sockets = [(address, port) for host, port, *_ in sockets if (address := _address(str(host)))]
        self._ports = {port for _, port in self._sockets}
        self._names = frozenset(names) - {"localhost"}
        self._urls = {_parts(url) for url in urls}

    def is_here(self) -> bool:
        """Return whether the current thread is the one that runs its event loop."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            return False
        return _running_loop() is loop if loop.is_running() else threading.get_ident() == self._thread

    def stays_here(self) -> bool:
        """Return whether no other thread is about to run its event loop.

        A loop that runs is not handed over. One that does not, for example between the steps of a test, may have been
        given to another thread that has yet to begin.
        """
        until = time.monotonic() + _HANDOVER_SECONDS
        while self.is_here():
            if _running_loop() is self._loop() or time.monotonic() >= until:
                return True
            time.sleep(0.005)
        return False

    def is_at(self, url: str) -> bool:
        """Return whether a URL, without ``/v1``, leads to it."""
        host, port, path = _parts(url)
        if (host, port, path) in self._urls or (host in self._names and port in self._ports):
            return True
        if host == "localhost" or host.endswith(".localhost"):
            return any(self._listens_on(address, port) for address in _LOOPBACK.values())
        address = _address(host)
        return address is not None and self._listens_on(address, port)

    def _listens_on(self, wanted: Address, port: int) -> bool:
        if wanted.is_unspecified:  # connecting to it connects to loopback
            wanted = _LOOPBACK[wanted.version]
        return any(
            port == own and (address == wanted or (address.is_unspecified and address.version == wanted.version))
            for address, own in self._sockets
        )


running: Final[set[Gateway]] = set()
"""The gateways of this process; normally there are none."""


@contextmanager
def serving(sockets: Iterable[Sequence[object]], names: Iterable[str], *urls: str) -> Iterator[None]:
    """Enter a gateway that serves in the current thread; the arguments are those of ``Gateway``."""
    gateway = Gateway(sockets, names, urls)
    running.add(gateway)
    try:
        yield
    finally:
        running.discard(gateway)


def is_held_up(url: str) -> bool:
    """Return whether a URL leads to a gateway that cannot answer while the current thread waits for it."""
    return any(gateway.is_here() and gateway.is_at(url) and gateway.stays_here() for gateway in running.copy())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _parts(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    port = _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    return (parts.hostname or "").removesuffix("."), port, parts.path.rstrip("/")


def _address(host: str) -> Address | None:
    """Return the address that a host name spells, also in the short forms of IPv4, such as ``127.1``."""
    try:
        address = ip_address(host)
    except ValueError:
        try:
            return ip_address(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return None
    return getattr(address, "ipv4_mapped", None) or address


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=running.clear)  # they run on in the parent process alone
