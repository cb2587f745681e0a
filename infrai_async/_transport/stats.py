"""The counters of a pool, and the public snapshot of them."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Final

import attrs

from infrai_async._protocol.scopes import add_exactly, multiply_exactly

_MANY: Final = 1_000  # the number of prices to collect before they are added up
_NOTHING: Final = Decimal(0)


@attrs.frozen(kw_only=True)
class Stats:
    """A snapshot of what a client's connection pool has done so far.

    Attributes:
        calls: the number of calls started.
        succeeded: the number of calls that have succeeded.
        failed: the number of calls that have failed or were cancelled.
        attempts: the number of requests sent.
        retries: the number of attempts that repeated a failed one.
        in_flight: the number of calls that hold a slot now.
        waiting: the number of calls that wait for a slot now.
        throttled_seconds: the total time for which the service has paused the pool (429, 503).
        connections_opened: the number of connections opened. Zero for a borrowed session, which is not observed.
        connections_reused: the number of attempts on an existing connection. Zero for a borrowed session.
        cost_usd: the sum of the costs that the responses reported, in USD.
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
    """The counters of one event loop's part of a pool. Only that loop's thread changes them, so they need no lock."""

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
        # Keeping a price is cheaper than an exact addition for each call. Sum and prices are in a single attribute,
        # because other threads read it, and must not count a price twice or miss one while prices are added up.
        self._spent: tuple[Decimal, list[Decimal]] = (_NOTHING, [])

    def spend(self, price: Decimal) -> None:
        """Add a price in USD."""
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
        """Add the counters of another part."""
        self.calls += other.calls
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.attempts += other.attempts
        self.retries += other.retries
        self.connections_opened += other.connections_opened
        self.connections_reused += other.connections_reused
        self._spent = (add_exactly(self._sum(), other._sum()), [])

    def stats(self, *, in_flight: int, waiting: int, throttled_seconds: float) -> Stats:
        """Return a snapshot, together with the figures that are kept elsewhere."""
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
