"""How many calls an account may make: a token bucket, kept as one point in time per account (GCRA).

Times are whole nanoseconds, so that who waits as long as it is told is let in, exactly.
"""

from __future__ import annotations

from typing import Final

_SECOND: Final = 1_000_000_000


class Limit:
    """Lets calls in at a steady rate, and some at once.

    Args:
        rate: calls per second.
        burst: how many may come at once after a pause.

    Raises:
        ValueError: an argument makes no sense; the message names it.
    """

    def __init__(self, rate: float, burst: int) -> None:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 1e-9 <= rate <= 1e9:
            raise ValueError("rate: not a number of calls per second, 1e-9 to 1e9; None means no limit")
        if isinstance(burst, bool) or not isinstance(burst, int) or burst < 1:
            raise ValueError(f"burst: {burst!r} is no number of calls; at least one has to get through")
        self.rate = rate
        self.burst = burst
        self._interval = round(_SECOND / rate)
        self._due: dict[str, int] = {}

    def wait(self, account: str, now: int) -> int:
        """Let a call in and return 0, or return the nanoseconds until the next one can be let in.

        Args:
            account: whose call it is.
            now: the time on any steady clock, in nanoseconds.
        """
        due = max(self._due.get(account, now), now)
        early = due - now - (self.burst - 1) * self._interval
        if early > 0:
            return early
        self._due[account] = due + self._interval
        return 0
