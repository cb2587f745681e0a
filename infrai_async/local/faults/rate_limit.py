"""The rate limit per account: a token bucket, stored as one timestamp per account (GCRA).

Times are integers in nanoseconds, so that a client that waits exactly as long as it was told is admitted.
"""

from __future__ import annotations

from typing import Final

_SECOND: Final = 1_000_000_000


class Limit:
    """Admit calls at a steady rate, with bursts.

    Args:
        rate: calls per second.
        burst: the number of calls that may be made at once after a pause.

    Raises:
        ValueError: if an argument is invalid; the message names it.
    """

    def __init__(self, rate: float, burst: int) -> None:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 1e-9 <= rate <= 1e9:
            raise ValueError("rate: must be a number of calls per second from 1e-9 to 1e9; None means no limit")
        if isinstance(burst, bool) or not isinstance(burst, int) or burst < 1:
            raise ValueError(f"burst: {burst!r} is not a number of calls; it must be at least 1")
        self.rate = rate
        self.burst = burst
        self._interval = round(_SECOND / rate)
        self._due: dict[str, int] = {}

    def wait(self, account: str, now: int) -> int:
        """Admit a call and return 0, or return the nanoseconds until a call can be admitted.

        Args:
            account: the account that makes the call.
            now: the time on any monotonic clock, in nanoseconds.
        """
        due = max(self._due.get(account, now), now)
        early = due - now - (self.burst - 1) * self._interval
        if early > 0:
            return early
        self._due[account] = due + self._interval
        return 0
