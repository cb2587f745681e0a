"""The limit: a token bucket with exact times, over HTTP and as the client meets it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async import AsyncInfrai, RateLimitError, RetryPolicy
from infrai_async.local import LocalGateway
from infrai_async.local.faults.rate_limit import Limit

SECOND = 1_000_000_000


def test_a_burst_gets_through_and_then_one_by_one_at_the_rate() -> None:
    limit = Limit(rate=10, burst=3)
    assert [limit.wait("a", 0) for _ in range(4)] == [0, 0, 0, SECOND // 10]
    assert limit.wait("a", SECOND // 10 - 1) == 1
    assert [limit.wait("a", SECOND // 10) for _ in range(2)] == [0, SECOND // 10]
    assert limit.wait("b", SECOND // 10) == 0, "each account has a bucket of its own"


@given(
    st.floats(0.001, 1e9),
    st.integers(1, 50),
    st.lists(st.integers(0, 10 * SECOND), min_size=1, max_size=200),
)
def test_who_waits_as_told_is_let_in_and_never_more_than_rate_and_burst(
    rate: float, burst: int, pauses: list[int]
) -> None:
    limit, now, let_in = Limit(rate, burst), 0, []
    interval = round(SECOND / rate)
    for pause in pauses:
        now += pause
        wait = limit.wait("a", now)
        assert 0 <= wait <= interval
        if wait:
            assert limit.wait("a", now + wait - 1) == 1
            now += wait
            assert limit.wait("a", now) == 0
        let_in.append(now)
    for first, start in enumerate(let_in):
        within = sum(start <= moment < start + 5 * interval for moment in let_in[first:])
        assert within <= burst + 5


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rate", {"rate": 0}),
        ("rate", {"rate": -1}),
        ("rate", {"rate": float("nan")}),
        ("rate", {"rate": float("inf")}),
        ("rate", {"rate": "fast"}),
        ("rate", {"rate": 10**400}),
        ("rate", {"rate": 1e-300}),
        ("rate", {"rate": True}),
        ("burst", {"burst": 0}),
        ("burst", {"burst": 2.5}),
        ("burst", {"burst": None}),
        ("burst", {"burst": True}),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        LocalGateway().limit(**arguments)


@pytest.mark.anyio
async def test_over_the_limit_is_429_with_the_time_to_wait_and_costs_nothing(
    without_postgres: Any, ask_as: Any
) -> None:
    gateway = LocalGateway(**without_postgres)
    gateway.limit(rate=0.5, burst=2)
    async with gateway:
        api = ask_as(gateway)
        answers = [await api.post("/v1/flags/set", {"key": f"{n}"}) for n in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        refused = answers[2]
        assert (refused.code, refused.cost, refused.error["retryable"]) == ("RATE_LIMITED", 0, True)
        assert refused.headers["Retry-After"] == "2"
        assert 1000 < int(refused.headers["Retry-After-Ms"]) <= 2000
        other = await api.with_key(None).post("/v1/activate", {})
        assert (await api.with_key(other.data["primary_api_key"]).balance()) == 2, "others are not held up"
        gateway.limit(rate=None)
        assert await api.balance() == 1.9998


@pytest.mark.anyio
async def test_a_client_obeys_and_everything_gets_through(without_postgres: Any) -> None:
    async with (
        LocalGateway(**without_postgres) as gateway,
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client,
    ):
        gateway.limit(rate=50, burst=5)
        started = time.monotonic()
        await asyncio.gather(*(client.flags.set(f"{n}", enabled=True) for n in range(60)))
        assert time.monotonic() - started >= 55 / 50, "no faster than the limit lets it"
        gateway.limit(rate=None)
        assert len(await client.flags.list().collect()) == 60
        assert client.stats.retries > 0


@pytest.mark.anyio
async def test_without_retries_it_is_a_rate_limit_error_with_the_time(without_postgres: Any) -> None:
    async with (
        LocalGateway(**without_postgres) as gateway,
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url, retry=RetryPolicy.none(), timeout=1) as client,
    ):
        gateway.limit(rate=0.01, burst=1)
        await client.account.balance()
        with pytest.raises(RateLimitError) as caught:
            await client.account.balance()
        assert caught.value.retry_after is not None
        assert 90 < caught.value.retry_after <= 100
        assert caught.value.outcome == "rejected"
