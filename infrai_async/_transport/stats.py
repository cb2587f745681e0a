"""What a pool has done so far: counted while it works, summed up when asked."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Final

import attrs

from infrai_async._protocol.scopes import add_exactly, multiply_exactly

_MANY: Final = 1_000  # prices, which are then added up
_NOTHING: Final = Decimal(0)


@attrs.frozen(kw_only=True)
class Stats:
    """What a pool has done so far.

    Attributes:
        calls: calls begun. ``succeeded`` and ``failed`` are those that have ended.
        attempts: how often something was sent.
        retries: those of them that repeat one that failed.
        in_flight: calls that hold a place now; ``waiting`` those that wait for one.
        throttled_seconds: how long the service has kept the pool waiting so far (429, 503).
        connections_opened: connections made; ``connections_reused`` attempts that needed none. Both stay zero for a
            borrowed session, whose connections are not ours to watch.
        cost_usd: the sum of what the answers said they cost.
    """

    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    attempts: int = 0
    retries: int = 0
    in_flight: int = 0
    waiting: int = 0
    throttled_seconds: float = 0.0
    connections_opened: int = 0
    connections_reused: int = 0
    cost_usd: Decimal = Decimal(0)

    def _repr_html_(self) -> str:
        from infrai_async._display.html import record

        return record(self)


class Counters:
    """What one loop's part of a pool has counted. Nobody else counts in it, so that a call needs no lock for it."""

    __slots__ = (
        "_spent",
        "attempts",
        "calls",
        "connections_opened",
        "connections_reused",
        "failed",
        "retries",
        "succeeded",
    )

    def __init__(self) -> None:
        self.calls = 0
        self.succeeded = 0
        self.failed = 0
        self.attempts = 0
        self.retries = 0
        self.connections_opened = 0
        self.connections_reused = 0
        # An exact sum for each call would cost more than keeping its price. One attribute, because it is read from
        # other threads.
        self._spent: tuple[Decimal, list[Decimal]] = (_NOTHING, [])

    def spend(self, price: Decimal) -> None:
        """Note a price in USD."""
        prices = self._spent[1]
        prices.append(price)
        if len(prices) >= _MANY:
            self._spent = (self._sum(), [])

    def _sum(self) -> Decimal:
        spent, prices = self._spent
        for price, times in Counter(tuple(prices)).items():
            spent = add_exactly(spent, multiply_exactly(price, Decimal(times)))
        return spent

    def add(self, other: Counters) -> None:
        """Count in what another part has counted."""
        self.calls += other.calls
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.attempts += other.attempts
        self.retries += other.retries
        self.connections_opened += other.connections_opened
        self.connections_reused += other.connections_reused
        self._spent = (add_exactly(self._sum(), other._sum()), [])

    def stats(self, *, in_flight: int, waiting: int, throttled_seconds: float) -> Stats:
        """Return them as they are now, with those that are kept elsewhere."""
        return Stats(
            calls=self.calls,
            succeeded=self.succeeded,
            failed=self.failed,
            attempts=self.attempts,
            retries=self.retries,
            in_flight=in_flight,
            waiting=waiting,
            throttled_seconds=throttled_seconds,
            connections_opened=self.connections_opened,
            connections_reused=self.connections_reused,
            cost_usd=self._sum(),
        )
