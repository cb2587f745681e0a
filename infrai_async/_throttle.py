"""What pushes back on the whole pool: the gate that a 429 closes, and the quota that retries draw on.

Neither is a lock. The gate is a point in time, so that whoever gives up waiting holds up nobody; the quota is a
number. The clock is an argument.
"""

from __future__ import annotations

from typing import Final

import attrs

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
class RetryQuota:
    """Stops a storm of retries against a service that is down: each costs, each success earns a little back."""

    left: float = _CAPACITY

    def take(self) -> bool:
        """Pay for one retry; false when nothing is left."""
        if self.left < _PRICE_OF_RETRY:
            return False
        self.left -= _PRICE_OF_RETRY
        return True

    def earn(self) -> None:
        """Note a success."""
        if self.left < _CAPACITY:
            self.left += 1.0
