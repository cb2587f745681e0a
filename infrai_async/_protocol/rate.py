"""The limits that apply to the whole pool: the gate that a 429 closes, the rate after it, and the retry quota.

None of them is a lock. The gate and the rate are points in time, so a call that is cancelled while it waits blocks no
other call. The quota is a number. Every method takes the time as an argument.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

_KEPT: Final = 0.85  # the fraction of the sustainable rate to start with after throttling
_RECOVERY: Final = 1.0  # seconds until the sustainable rate is reached again; growth is slowest there, then speeds up
_FORGOTTEN: Final = 5.0  # seconds without throttling until the limit is lifted; ten times the rate is tried by then
_FEW: Final = 5  # successes; fewer are not enough to estimate a rate
_SLOWEST: Final = 10.0  # calls per second, if no rate can be estimated
_LATE: Final = 0.05  # seconds of delay that a busy event loop may catch up
_CAPACITY: Final = 500.0
_PRICE_OF_RETRY: Final = 5.0  # five successes pay for one retry, so failure rates of up to 16 % never exhaust the quota


@attrs.define
class Gate:
    """Closed until a point in time, which later responses can only postpone."""

    opens_at: float = 0.0
    held_seconds: float = 0.0

    def close(self, until: float, now: float) -> None:
        """Stop the pool from sending before ``until``; both times are by the caller's clock."""
        if until > self.opens_at:
            self.held_seconds += until - max(now, self.opens_at)
            self.opens_at = until


@attrs.define
class RateEstimator:
    """Limits how fast calls may start: not at all until the service throttles, then to a rate that it learns.

    After each throttling the rate drops slightly below the rate that the service sustained, returns to it, stays near
    it for a while, and then probes for more, along a cubic curve as in TCP CUBIC, until the limit is lifted.
    """

    limited: bool = False
    next_start: float = 0.0
    _rate: float | None = None  # the sustainable rate, in calls per second
    _resumed: float = -math.inf
    _since: float = -math.inf  # when counting of successes started
    _before: int = 0  # the number of successes before that

    def start_counting(self, now: float, succeeded: int) -> None:
        """Restart the count of successes; called when no call was in flight, so that idle time does not distort it."""
        if not self.limited:
            self._since, self._before = now, succeeded

    def slow_down(self, now: float, resumes_at: float, succeeded: int, sent_at: float) -> None:
        """Learn from a throttled attempt; one that was sent before the last pause ended gives no new information.

        Args:
            now: when the response arrived.
            resumes_at: when the service accepts calls again.
            succeeded: the number of calls that have succeeded so far.
            sent_at: when the attempt was sent.
        """
        if sent_at >= self._resumed:
            successes = succeeded - self._before
            if self._rate is not None:  # the observed rate is too low an estimate, the attempted one too high
                self._rate = max(1.0, (successes / (now - self._since) + self._tried(now)) / 2)
            elif successes >= _FEW:  # they may have come in a burst that the pause compensates for
                self._rate = successes / max(now - self._since, resumes_at - now)
            self._since, self._before = now, succeeded
        self.limited = True
        self._resumed = self.next_start = max(resumes_at, self._resumed)

    def resume(self, now: float) -> None:
        """Record that the service accepts calls again from ``now``, and not from the end of its pause."""
        self._resumed = self.next_start = now

    def start(self, now: float, waiting: int) -> None:
        """Record that a call starts now; the next one may start at ``next_start``.

        Args:
            now: the current time.
            waiting: the number of calls still waiting to start. If no rate is known, they start within about a second.
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
    """Stops retry storms against a service that is down: each retry costs credit, each success earns a little back."""

    left: float = _CAPACITY
    _succeeded: int = 0  # the successes that are already credited

    def take(self, succeeded: int) -> bool:
        """Pay for one retry; return whether there was enough credit.

        Args:
            succeeded: the number of calls that have succeeded so far.
        """
        self.left = min(_CAPACITY, self.left + succeeded - self._succeeded)
        self._succeeded = succeeded
        if self.left < _PRICE_OF_RETRY:
            return False
        self.left -= _PRICE_OF_RETRY
        return True
