"""What pushes back on the whole pool: the gate that a 429 closes, the pace after it, the quota that retries draw on.

None of them is a lock. Gate and pace are points in time, so that whoever gives up waiting holds up nobody; the quota
is a number. The clock is an argument.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

_KEPT: Final = 0.85  # of the rate that the service was found to stand; so much is tried next
_RECOVERY: Final = 1.0  # seconds until that rate is tried again; growth is slowest there, then ever faster
_FORGOTTEN: Final = 5.0  # seconds without throttling, when ten times that rate is tried: no limit any more
_FEW: Final = 5  # successes: from fewer no rate can be told
_SLOWEST: Final = 10.0  # calls per second, where no rate can be told
_LATE: Final = 0.05  # seconds that a busy loop may make up for
_CAPACITY: Final = 500.0
_PRICE_OF_RETRY: Final = 5.0  # one retry is earned back by five successes: faults of up to 16 % never exhaust it


@attrs.define
class Gate:
    """Closed until a point in time, which later answers can only move on."""

    opens_at: float = 0.0
    held_seconds: float = 0.0

    def close(self, until: float, now: float) -> None:
        """Keep the pool from sending before ``until`` (both by the caller's clock)."""
        if until > self.opens_at:
            self.held_seconds += until - max(now, self.opens_at)
            self.opens_at = until


@attrs.define
class RateEstimator:
    """How fast calls may start: as they come, until the service throttles; then at a rate that is learned.

    After each throttling the rate falls a little below what the service was found to stand, comes back to it, stays
    about there for a while, and then looks for more (a cubic curve, as TCP has one), until the limit is forgotten.
    """

    limited: bool = False
    next_start: float = 0.0
    _rate: float | None = None  # what the service stands, in calls per second
    _resumed: float = -math.inf
    _since: float = -math.inf  # since when successes are counted, and how many there were before
    _before: int = 0

    def start_counting(self, now: float, succeeded: int) -> None:
        """Begin to count anew: nothing was in flight, so that the time before says nothing of the service."""
        if not self.limited:
            self._since, self._before = now, succeeded

    def slow_down(self, now: float, resumes_at: float, succeeded: int, sent_at: float) -> None:
        """Learn from a throttled attempt; one that was sent before the last pause ended says nothing new.

        Args:
            now: when the answer came.
            resumes_at: when the service wants to be asked again.
            succeeded: how many calls have succeeded so far.
            sent_at: when the attempt was sent.
        """
        if sent_at >= self._resumed:
            successes = succeeded - self._before
            if self._rate is not None:  # what went through is too low a guess, what was tried is too high
                self._rate = max(1.0, (successes / (now - self._since) + self._tried(now)) / 2)
            elif successes >= _FEW:  # perhaps at once, out of what the pause will make up for
                self._rate = successes / max(now - self._since, resumes_at - now)
            self._since, self._before = now, succeeded
        self.limited = True
        self._resumed = self.next_start = max(resumes_at, self._resumed)

    def start(self, now: float, waiting: int) -> None:
        """Note that a call starts now; the next one may when ``next_start`` has come.

        Args:
            now: the time.
            waiting: how many more wait to start; where nothing is known, they do so within about a second.
        """
        if now - self._resumed > _FORGOTTEN:
            self.limited, self._rate = False, None
            return
        if self._rate is None:
            self._rate = max(_SLOWEST, waiting)
        self.next_start = max(self.next_start, now - _LATE) + 1.0 / self._tried(now)

    def _tried(self, now: float) -> float:
        recovered = max(0.0, now - self._resumed) / _RECOVERY - 1.0
        return (self._rate or _SLOWEST) * (1.0 + (1.0 - _KEPT) * recovered**3)


@attrs.define
class RetryQuota:
    """Stops a storm of retries against a service that is down: each costs, each success earns a little back."""

    left: float = _CAPACITY
    _succeeded: int = 0  # successes that have earned what they do

    def take(self, succeeded: int) -> bool:
        """Pay for one retry; false when nothing is left.

        Args:
            succeeded: how many calls went well so far.
        """
        self.left = min(_CAPACITY, self.left + succeeded - self._succeeded)
        self._succeeded = succeeded
        if self.left < _PRICE_OF_RETRY:
            return False
        self.left -= _PRICE_OF_RETRY
        return True
