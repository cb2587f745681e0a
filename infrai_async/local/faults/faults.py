"""The faults that users set for their own tests: which calls fail, and how. ``faults.injector`` carries them out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final

import attrs

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local._errors import RequestRefused, retry_after
from infrai_async.models import JSON

_CODES: Final = {
    401: "UNAUTHORIZED",
    402: "INSUFFICIENT_CREDIT",
    403: "FORBIDDEN",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    429: "RATE_LIMITED",
    502: "VENDOR_ERROR",
    503: "VENDOR_UNAVAILABLE",
    504: "VENDOR_TIMEOUT",
}


@attrs.frozen(kw_only=True)
class Fault:
    """A fault for the calls of some capabilities; the attributes are the arguments of ``Faults.add``."""

    capability: str = "*"
    status: int | None = None
    retry_after: float | None = None
    latency: float = 0.0
    truncate: bool = False
    drop: bool = False
    count: int | None = None

    def concerns(self, capability: str) -> bool:
        """Return whether the fault applies to a capability."""
        return fnmatchcase(capability, self.capability)

    def refusal(self, capability: str, extra: Mapping[str, JSON]) -> RequestRefused:
        """Return the injected error, with the code that a real error of this status would have."""
        status = self.status or 500
        headers = {} if self.retry_after is None else retry_after(self.retry_after)
        return RequestRefused(
            status,
            _code(status, capability),
            "this failure was injected by a fault of the local gateway",
            hint="remove it with LocalGateway.faults.clear() or DELETE /_gateway/faults",
            headers=headers,
            extra=extra,
        )


_LONGEST: Final = 1e9
"""The longest time in seconds; longer than any test waits, and small enough for exact arithmetic."""
_LONGEST_PATTERN: Final = 100
NO_FAULT: Final = Fault()


class Faults:
    """The faults of the next calls, for testing how a program handles failures.

    A call gets the first fault added that applies to its capability; faults do not combine. The methods may be called
    from any thread.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Fault]:
        """Iterate over the remaining faults, each with its remaining count."""
        return iter(tuple(self._faults))

    def add(
        self,
        capability: str = "*",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        latency: float = 0.0,
        truncate: bool = False,
        drop: bool = False,
        count: int | None = None,
    ) -> None:
        """Add a fault.

        ``latency`` and ``status`` apply before the call is carried out: a call that gets an injected ``status`` has no
        effect and costs nothing. ``truncate`` and ``drop`` apply afterwards: the call is carried out and charged, and
        only its response is lost, unless ``status`` is given too. A client that disconnects ends the latency early; the
        call is carried out nevertheless.

        Args:
            capability: the id of a capability, such as ``"db.project.create"``, or a pattern, such as ``"db.*"``.
            status: the HTTP status to respond with, 400 to 599, together with the code that belongs to it.
            retry_after: the pause that the response asks for, in seconds: exactly in ``Retry-After-Ms``, and rounded
                up in ``Retry-After``.
            latency: the delay before the call, in seconds.
            truncate: whether to send half of the response body and then close the connection.
            drop: whether to close the connection without a response.
            count: the number of calls to affect; ``None`` affects all calls until ``clear()``.

        Raises:
            ValueError: if an argument is invalid; the message names it.
        """
        fault = Fault(
            capability=capability,
            status=status,
            retry_after=retry_after,
            latency=latency,
            truncate=truncate,
            drop=drop,
            count=count,
        )
        _check(fault)
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def take(self, capability: str) -> Fault:
        """Return the fault for the next call of a capability, and decrement its count."""
        with self._lock:
            for place, fault in enumerate(self._faults):
                if fault.concerns(capability):
                    self._faults[place : place + 1] = _left(fault)
                    return fault
        return NO_FAULT


def _left(fault: Fault) -> list[Fault]:
    if fault.count is None:
        return [fault]
    return [attrs.evolve(fault, count=fault.count - 1)] if fault.count > 1 else []


def _code(status: int, capability: str) -> str:
    """Return the code for a status (CONTRACT.md 1.3); those of 404 and 409 depend on the capability."""
    if status == 404:
        thing = capability.upper().rpartition(".")[0].replace(".", "_")
        return f"{thing.replace('FLAGS', 'FLAG')}_NOT_FOUND"
    if status == 409 and capability.startswith("flags."):
        return "FLAG_VERSION_CONFLICT"
    return _CODES.get(status, "VALIDATION_ERROR" if status < 500 else "INTERNAL_ERROR")


def _check(fault: Fault) -> None:
    # Matching runs on the event loop, and a long pattern could block it for every client.
    known = isinstance(fault.capability, str) and len(fault.capability) <= _LONGEST_PATTERN
    if not known or not any(map(fault.concerns, CAPABILITIES)):
        shown = repr(fault.capability)[: _LONGEST_PATTERN + 2]
        raise ValueError(f"capability: {shown} matches no capability")
    if fault.status is not None and not (_is_whole(fault.status) and 400 <= fault.status <= 599):
        raise ValueError(f"status: {fault.status!r} is not an HTTP error status, 400 to 599")
    if not _is_time(fault.latency):
        raise ValueError(f"latency: {fault.latency!r} is not a number of seconds")
    if fault.retry_after is not None and not _is_time(fault.retry_after):
        raise ValueError(f"retry_after: {fault.retry_after!r} is not a number of seconds")
    for name in ("truncate", "drop"):
        if getattr(fault, name) not in (True, False):
            raise ValueError(f"{name}: {getattr(fault, name)!r} is neither True nor False")
    if fault.count is not None and not (_is_whole(fault.count) and fault.count >= 1):
        raise ValueError(f"count: {fault.count!r} is not a number of calls; None means all until clear()")
    _check_together(fault)


def _check_together(fault: Fault) -> None:
    if fault.retry_after is not None and fault.status is None:
        raise ValueError("retry_after: needs a status too, since it is a header of that response")
    if fault.truncate and fault.drop:
        raise ValueError("truncate, drop: a response is either truncated or dropped, so give only one of them")
    if fault.status is None and not (fault.latency or fault.truncate or fault.drop):
        raise ValueError("status, latency, truncate, drop: the fault has no effect, so give at least one of them")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST
