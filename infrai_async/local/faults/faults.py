"""Which calls are to go wrong, and how: what users set for their own tests, without carrying it out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final

import attrs

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local._errors import RequestRefused
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
    """What is to go wrong with the calls of some capabilities; the attributes are those of ``Faults.add``."""

    capability: str = "*"
    status: int | None = None
    retry_after: float | None = None
    latency: float = 0.0
    truncate: bool = False
    drop: bool = False
    count: int | None = None

    def concerns(self, capability: str) -> bool:
        """Say whether a capability is meant."""
        return fnmatchcase(capability, self.capability)

    def refusal(self, capability: str, extra: Mapping[str, JSON]) -> RequestRefused:
        """Return the injected refusal, in the code that a real one of that status would have."""
        status = self.status or 500
        headers = {} if self.retry_after is None else {"Retry-After": f"{Decimal(f'{self.retry_after:.15g}'):f}"}
        return RequestRefused(
            status,
            _code(status, capability),
            "this failure was asked for",
            hint="LocalGateway.faults.clear() or DELETE /_gateway/faults ends it",
            headers=headers,
            extra=extra,
        )


_LONGEST: Final = 1e9
"""Seconds; far beyond what anybody waits, and safe to reckon with."""
_LONGEST_PATTERN: Final = 100
NO_FAULT: Final = Fault()


class Faults:
    """What is to go wrong with the next calls, for tests of how a program takes it.

    The first fault added that concerns a call's capability is the one it meets; several do not combine. It may be used
    from any thread.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Fault]:
        """Go through the faults still to be met, each with the count that is left."""
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
        """Make calls go wrong.

        ``latency`` and ``status`` come before the work: a call that is answered with an injected ``status`` does
        nothing and costs nothing. ``truncate`` and ``drop`` come after it: the call is done and paid for, and only its
        answer is lost, unless ``status`` was given too. A caller that hangs up during the latency ends the wait; the
        work is done all the same.

        Args:
            capability: which calls: an id such as ``"db.project.create"``, or a pattern such as ``"db.*"``.
            status: answer with this HTTP status, 400 to 599, and the code that belongs to it.
            retry_after: the seconds of that answer's ``Retry-After``.
            latency: seconds to wait first.
            truncate: send half of the answer's body, then close the connection.
            drop: close the connection without any answer.
            count: for so many calls; ``None``: until ``clear()``.

        Raises:
            ValueError: an argument makes no sense; the message names it.
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
        """Let nothing go wrong any more."""
        with self._lock:
            self._faults.clear()

    def take(self, capability: str) -> Fault:
        """Return what the next call of a capability meets, and count it."""
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
    """Return the code of CONTRACT.md 1.3; a missing or contested thing is named by its capability."""
    if status == 404:
        thing = capability.upper().rpartition(".")[0].replace(".", "_")
        return f"{thing.replace('FLAGS', 'FLAG')}_NOT_FOUND"
    if status == 409 and capability.startswith("flags."):
        return "FLAG_VERSION_CONFLICT"
    return _CODES.get(status, "VALIDATION_ERROR" if status < 500 else "INTERNAL_ERROR")


def _check(fault: Fault) -> None:
    # Matching takes the longer the longer the pattern is, and everybody would wait for it.
    known = isinstance(fault.capability, str) and len(fault.capability) <= _LONGEST_PATTERN
    if not known or not any(map(fault.concerns, CAPABILITIES)):
        shown = repr(fault.capability)[: _LONGEST_PATTERN + 2]
        raise ValueError(f"capability: {shown} is the id or the pattern of no capability")
    if fault.status is not None and not (_is_whole(fault.status) and 400 <= fault.status <= 599):
        raise ValueError(f"status: {fault.status!r} is no HTTP status of a failure, 400 to 599")
    if not _is_time(fault.latency):
        raise ValueError(f"latency: {fault.latency!r} is no number of seconds")
    if fault.retry_after is not None and not _is_time(fault.retry_after):
        raise ValueError(f"retry_after: {fault.retry_after!r} is no number of seconds")
    for name in ("truncate", "drop"):
        if getattr(fault, name) not in (True, False):
            raise ValueError(f"{name}: {getattr(fault, name)!r} is neither True nor False")
    if fault.count is not None and not (_is_whole(fault.count) and fault.count >= 1):
        raise ValueError(f"count: {fault.count!r} is no number of calls; None means all until clear()")
    _check_together(fault)


def _check_together(fault: Fault) -> None:
    if fault.retry_after is not None and fault.status is None:
        raise ValueError("retry_after: only an answer with a status has one, so give status too")
    if fault.truncate and fault.drop:
        raise ValueError("truncate, drop: an answer is cut short or not sent at all, so give one of them")
    if fault.status is None and not (fault.latency or fault.truncate or fault.drop):
        raise ValueError("status, latency, truncate, drop: give at least one, else nothing goes wrong")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST
