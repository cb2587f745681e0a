"""The gate that a 429 closes, the pace after it, and the quota that retries draw on: arithmetic."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async._protocol.rate import Gate, RateEstimator, RetryQuota


def spend(quota: RetryQuota, calls: int, faults: float) -> int:
    """Make so many attempts of which a share fails, each failure paying for a retry; count the refused ones."""
    chance = random.Random(1)
    refused = succeeded = 0
    for _ in range(calls):
        if chance.random() < faults:
            refused += not quota.take(succeeded)
        else:
            succeeded += 1
    return refused


@pytest.mark.parametrize("faults", [0.0, 0.01, 0.03, 0.1])
def test_a_few_faults_never_exhaust_the_quota(faults: float) -> None:
    assert spend(RetryQuota(), 100_000, faults) == 0


def test_faults_that_come_in_a_row_do_not_exhaust_it_either() -> None:
    quota = RetryQuota()
    for turn in range(1000):
        assert all(quota.take(970 * turn) for _ in range(30))


def test_a_dead_service_exhausts_the_quota() -> None:
    quota = RetryQuota()
    assert [quota.take(0) for _ in range(101)] == [True] * 100 + [False]


@pytest.mark.parametrize("calls", [1_000, 100_000])
def test_against_a_dead_service_retries_stay_few_however_many_calls(calls: int) -> None:
    assert spend(RetryQuota(), calls, 1.0) == calls - 100


def test_a_service_that_half_works_is_not_stormed() -> None:
    assert spend(RetryQuota(), 100_000, 0.5) > 30_000


def test_what_is_refused_costs_nothing() -> None:
    quota = RetryQuota(left=4.0)
    assert not quota.take(0)
    assert quota.left == 4.0


def test_five_successes_earn_a_retry_back() -> None:
    quota = RetryQuota(left=0.0)
    assert not quota.take(4)
    assert quota.take(5)


def test_successes_are_not_hoarded() -> None:
    quota = RetryQuota()
    assert quota.take(10_000)
    assert quota.left == 495.0


def test_a_gate_is_open_at_first() -> None:
    assert Gate() == Gate(opens_at=0.0, held_seconds=0.0)


def test_a_gate_closes_until_a_point_in_time() -> None:
    gate = Gate()
    gate.close(until=107.5, now=100.0)
    assert (gate.opens_at, gate.held_seconds) == (107.5, 7.5)


def test_a_later_point_moves_the_gate_on_and_counts_the_difference_once() -> None:
    gate = Gate(opens_at=105.0, held_seconds=5.0)
    gate.close(until=107.0, now=102.0)
    assert (gate.opens_at, gate.held_seconds) == (107.0, 7.0)


@pytest.mark.parametrize("until", [90.0, 104.9, 105.0])
def test_an_earlier_point_does_not_open_the_gate(until: float) -> None:
    gate = Gate(opens_at=105.0, held_seconds=5.0)
    gate.close(until=until, now=100.0)
    assert gate == Gate(opens_at=105.0, held_seconds=5.0)


def test_the_time_that_it_was_open_in_between_is_not_counted() -> None:
    gate = Gate()
    gate.close(until=105.0, now=100.0)
    gate.close(until=203.0, now=200.0)
    assert gate.held_seconds == 8.0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=20))
def test_a_gate_only_ever_moves_on(steps: list[tuple[float, float]]) -> None:
    gate, now = Gate(), 0.0
    for later, length in steps:
        now += later
        before = gate.opens_at
        gate.close(now + length, now)
        assert gate.opens_at == max(before, now + length)
    assert gate.held_seconds <= gate.opens_at + 1e-6


# --- the pace ---


@attrs.define
class Simulation:
    """A pool of 64 places before a service that lets ``rate`` calls a second through, and ``burst`` at once.

    Whatever comes above that is told to wait ``after`` seconds. Every answer takes ``latency`` seconds, every timer is
    up to a millisecond late. No clock, no socket: events in the order of their times.
    """

    rate: float = 200.0
    burst: float = 20.0
    after: float = 0.1
    latency: float = 0.005
    sent: list[float] = attrs.field(factory=list)
    throttled: list[float] = attrs.field(factory=list)  # by when they were sent
    finished: list[float] = attrs.field(factory=list)
    _estimator: RateEstimator = attrs.field(factory=RateEstimator)
    _gate: Gate = attrs.field(factory=Gate)
    _waiting: int = 0
    _holding: int = 0
    _starters: deque[int] = attrs.field(factory=deque)
    _tokens: float = 0.0
    _seen: float = 0.0
    _events: list[tuple[float, int, Callable[..., None], tuple[float, ...]]] = attrs.field(factory=list)
    _order: itertools.count[int] = attrs.field(factory=itertools.count)
    _chance: random.Random = attrs.field(factory=lambda: random.Random(1))

    def run(self, calls: int, every: float = 0.0) -> None:
        self._tokens = self.burst
        for number in range(calls):
            self._at(number * every, self._come)
        while self._events:
            now, _, what, arguments = heapq.heappop(self._events)
            what(now, *arguments)

    def _at(self, time: float, what: Callable[..., None], *arguments: float) -> None:
        heapq.heappush(self._events, (time, next(self._order), what, arguments))

    def _come(self, now: float) -> None:
        self._waiting += 1
        self._fill(now)

    def _fill(self, now: float) -> None:
        while self._waiting and self._holding < 64:
            self._waiting -= 1
            self._holding += 1
            if self._estimator.limited:
                self._starters.append(0)
                if len(self._starters) == 1:
                    self._let_start(now)
            else:
                if self._holding == 1:
                    self._estimator.start_counting(now, len(self.finished))
                self._send(now)

    def _let_start(self, now: float) -> None:
        while self._starters:
            due = max(self._gate.opens_at, self._estimator.next_start)
            if due > now:
                self._at(due + self._chance.random() / 1000, self._let_start)
                return
            self._starters.popleft()
            self._estimator.start(now, len(self._starters))
            self._send(now)

    def _send(self, now: float) -> None:
        self.sent.append(now)
        self._at(now + self.latency / 2, self._serve, now)

    def _serve(self, now: float, sent: float) -> None:
        self._tokens = min(self.burst, self._tokens + (now - self._seen) * self.rate)
        self._seen = now
        served = self._tokens >= 1.0
        self._tokens -= served
        self._at(now + self.latency / 2, self._answer, sent, served)

    def _answer(self, now: float, sent: float, served: bool) -> None:
        self._holding -= 1
        if served:
            self.finished.append(now)
        else:
            self.throttled.append(sent)
            self._gate.close(now + self.after, now)
            self._estimator.slow_down(now, now + self.after, len(self.finished), sent)
            self._waiting += 1
        self._fill(now)

    @property
    def seconds(self) -> float:
        return self.finished[-1]

    @property
    def late_share(self) -> float:
        """The share of what was sent after the first second that was throttled."""
        return sum(sent > 1 for sent in self.throttled) / max(1, sum(sent > 1 for sent in self.sent))


@pytest.mark.parametrize(
    ("settings", "longer"),
    [
        ({}, 1.06),
        ({"latency": 0.001}, 1.06),
        ({"latency": 0.02}, 1.15),
        ({"latency": 0.1}, 1.4),
        ({"rate": 50.0, "burst": 5.0}, 1.1),
        ({"rate": 1000.0, "burst": 50.0}, 1.4),
        ({"rate": 5000.0, "burst": 500.0}, 1.1),
        ({"burst": 200.0, "after": 0.5}, 1.1),
        ({"after": 0.01}, 1.05),
        ({"burst": 1.0, "after": 0.05}, 1.9),
        ({"rate": 20.0, "burst": 2.0, "after": 1.0}, 2.5),
    ],
    ids=str,
)
def test_the_rate_of_a_service_that_allows_so_much_is_found_and_kept(settings: dict[str, float], longer: float) -> None:
    pool = Simulation(**settings)
    calls = int(5 * pool.rate + pool.burst)
    pool.run(calls)
    assert len(pool.finished) == calls
    assert pool.seconds < 5.0 * longer
    assert pool.late_share < 0.05


def test_a_service_that_never_throttles_is_not_slowed_down() -> None:
    pool = Simulation(rate=1e9, burst=1e9)
    pool.run(1000)
    assert pool.throttled == []
    assert pool.seconds < 1000 / 64 * pool.latency + 0.02


def test_calls_that_waited_for_a_pause_start_spread_out() -> None:
    pool = Simulation(rate=1e9, burst=1.0, after=2.0)
    pool._seen, pool._tokens = 0.0, 0.0
    pool._estimator.slow_down(0.0, 2.0, 0, 0.0)
    pool._gate.close(2.0, 0.0)
    pool.run(50)
    steps = [later - sooner for sooner, later in itertools.pairwise(pool.sent)]
    assert pool.sent[0] >= 2.0
    assert 0.8 < pool.sent[-1] - pool.sent[0] < 1.3
    assert max(steps) < 0.1


def test_a_limit_is_forgotten_when_the_service_has_not_throttled_for_a_while() -> None:
    pace = RateEstimator()
    pace.slow_down(0.0, 0.1, 0, 0.0)
    pace.start(5.0, 0)
    assert pace.limited
    pace.start(5.2, 0)
    assert not pace.limited


def test_the_rate_falls_when_the_service_throttles_and_grows_back_when_not() -> None:
    def tried(pace: RateEstimator, now: float) -> float:
        pace.next_start = now
        pace.start(now, 0)
        return 1.0 / (pace.next_start - now)

    pace = RateEstimator()
    pace.start_counting(0.0, 0)
    pace.slow_down(1.0, 1.1, 100, 0.9)  # 100 in a second
    assert tried(pace, 1.1) == pytest.approx(85.0)
    assert tried(pace, 2.1) == pytest.approx(100.0)
    assert tried(pace, 3.1) == pytest.approx(115.0)
    pace.slow_down(3.1, 3.2, 300, 3.0)  # 200 in 2.1 seconds, with 115 tried
    assert tried(pace, 3.2) == pytest.approx(0.85 * (200 / 2.1 + 115.0) / 2)


def test_what_came_at_once_is_what_the_pause_makes_up_for() -> None:
    pace = RateEstimator()
    pace.start_counting(0.0, 0)
    pace.slow_down(0.05, 0.15, 20, 0.04)
    assert pace == RateEstimator(
        limited=True, next_start=0.15, rate=pytest.approx(200.0), resumed=0.15, since=0.05, before=20
    )


def test_an_answer_to_what_was_sent_before_the_pause_teaches_nothing_new() -> None:
    pace = RateEstimator()
    pace.start_counting(0.0, 0)
    pace.slow_down(0.9, 1.0, 100, 0.8)
    before = attrs.evolve(pace)
    pace.slow_down(0.95, 1.0, 100, 0.85)
    assert pace == before


def test_a_late_loop_makes_up_for_a_moment_only() -> None:
    pace = RateEstimator()
    pace.start_counting(0.0, 0)
    pace.slow_down(1.0, 1.1, 100, 0.9)
    pace.start(1.1, 9)
    pace.start(1.6, 9)
    assert pace.next_start == pytest.approx(1.55 + 1 / 98.125)


# --- the arithmetic, step by step ------------------------------------------------------------------------------------


def throttled(successes: int = 10, seconds: float = 1.0, pause: float = 1.0) -> RateEstimator:
    """A pace that was throttled after so many successes in so many seconds."""
    pace = RateEstimator()
    pace.start_counting(0.0, 0)
    pace.slow_down(seconds, seconds + pause, successes, sent_at=seconds / 2)
    return pace


def first_rate(pace: RateEstimator, waiting: int = 0) -> float:
    """The calls per second at which calls start when the pause ends: 0.85 of the rate that was learned."""
    now = pace.next_start
    pace.start(now, waiting)
    return 1 / (pace.next_start - now) / 0.85


def test_the_rate_is_what_succeeded_in_the_time_that_it_took() -> None:
    assert first_rate(throttled(20, seconds=2.0)) == pytest.approx(10)
    burst = throttled(20, seconds=1.0, pause=4.0)
    assert first_rate(burst) == pytest.approx(5)  # the pause makes up for it


@pytest.mark.parametrize(("successes", "rate"), [(4, 10.0), (5, 5.0), (6, 6.0)])
def test_fewer_than_five_successes_teach_no_rate(successes: int, rate: float) -> None:
    assert first_rate(throttled(successes)) == pytest.approx(rate)


@pytest.mark.parametrize(("waiting", "rate"), [(0, 10.0), (10, 10.0), (11, 11.0), (400, 400.0)])
def test_without_a_rate_all_that_wait_start_within_about_a_second_and_ten_at_least(waiting: int, rate: float) -> None:
    assert first_rate(throttled(0), waiting) == pytest.approx(rate)


def test_counting_goes_on_while_the_pace_is_limited() -> None:
    """A moment in which nothing is in flight must not make the next estimate start from nothing."""
    pace = throttled(10)  # ten a second, until 2.0
    pace.start_counting(2.9, 30)
    pace.slow_down(3.0, 4.0, 30, sent_at=2.5)  # twenty in two seconds; ten a second were tried
    assert first_rate(pace) == pytest.approx(10)


def test_counting_starts_anew_once_the_limit_is_lifted() -> None:
    pace = throttled(10)
    pace.start(7.1, 0)
    assert not pace.limited
    pace.start_counting(100.0, 500)
    pace.slow_down(101.0, 102.0, 530, sent_at=100.5)
    assert first_rate(pace) == pytest.approx(30)


@pytest.mark.parametrize(("sent_at", "rate"), [(1.999, 10.0), (2.0, 15.0), (2.5, 15.0)])
def test_what_was_sent_when_the_pause_ended_or_later_teaches_a_rate(sent_at: float, rate: float) -> None:
    pace = throttled(10)
    pace.slow_down(3.0, 4.0, 50, sent_at=sent_at)  # forty in two seconds, where ten a second were tried
    assert first_rate(pace) == pytest.approx(rate)


def test_each_estimate_counts_from_the_one_before() -> None:
    pace = throttled(10)
    pace.slow_down(3.0, 4.0, 30, sent_at=2.0)
    pace.slow_down(5.0, 6.0, 50, sent_at=4.0)
    assert first_rate(pace) == pytest.approx(10)


def test_the_rate_never_falls_below_one_a_second() -> None:
    pace = throttled(5, seconds=4.0, pause=1.0)
    assert first_rate(pace) == pytest.approx(1.25)
    pace.slow_down(5.5, 6.0, 5, sent_at=5.0)
    assert first_rate(pace) == pytest.approx(1)
    pace.slow_down(6.5, 7.0, 5, sent_at=6.0)
    assert first_rate(pace) == pytest.approx(1)


def test_a_service_found_well_early_counts_as_resumed_from_then() -> None:
    pace = throttled(10, pause=300.0)
    pace.resume(400.0)
    assert pace.limited
    assert pace.next_start == 400.0
    assert first_rate(pace, waiting=3) == pytest.approx(10 / 300)
    pace.start(404.9, 0)
    assert pace.limited  # forgotten five seconds after it resumed
    pace.start(405.1, 0)
    assert not pace.limited


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    pace = RateEstimator()
    pace.slow_down(now=1.0, resumes_at=9.0, succeeded=0, sent_at=0.5)
    pace.slow_down(now=1.5, resumes_at=2.0, succeeded=0, sent_at=0.5)
    assert pace.next_start == 9.0
