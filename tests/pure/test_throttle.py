"""The gate that a 429 closes, and the quota that retries draw on: arithmetic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async._throttle import Gate, RetryQuota


def spend(quota: RetryQuota, calls: int, faults: float) -> int:
    """Make so many attempts of which a share fails, each failure paying for a retry; count the refused ones."""
    chance = random.Random(1)
    refused = 0
    for _ in range(calls):
        if chance.random() < faults:
            refused += not quota.take()
        else:
            quota.earn()
    return refused


@pytest.mark.parametrize("faults", [0.0, 0.01, 0.03, 0.1])
def test_a_few_faults_never_exhaust_the_quota(faults: float) -> None:
    assert spend(RetryQuota(), 100_000, faults) == 0


def test_faults_that_come_in_a_row_do_not_exhaust_it_either() -> None:
    quota = RetryQuota()
    for _ in range(1000):
        assert all(quota.take() for _ in range(30))
        for _ in range(970):
            quota.earn()


def test_a_dead_service_exhausts_the_quota() -> None:
    quota = RetryQuota()
    assert [quota.take() for _ in range(101)] == [True] * 100 + [False]


@pytest.mark.parametrize("calls", [1_000, 100_000])
def test_against_a_dead_service_retries_stay_few_however_many_calls(calls: int) -> None:
    assert spend(RetryQuota(), calls, 1.0) == calls - 100


def test_a_service_that_half_works_is_not_stormed() -> None:
    assert spend(RetryQuota(), 100_000, 0.5) > 30_000


def test_what_is_refused_costs_nothing() -> None:
    quota = RetryQuota(left=4.0)
    assert not quota.take()
    assert quota.left == 4.0


def test_five_successes_earn_a_retry_back() -> None:
    quota = RetryQuota(left=0.0)
    for _ in range(4):
        quota.earn()
    assert not quota.take()
    quota.earn()
    assert quota.take()


def test_successes_are_not_hoarded() -> None:
    quota = RetryQuota()
    for _ in range(10_000):
        quota.earn()
    assert quota.left == 500.0


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
