"""What a flag is when nobody can say: the default, where one was given."""

from __future__ import annotations

from typing import Any

import pytest
from support.oracle import Oracle, Reply, answer, refuse

from infrai_async import AsyncInfrai, AuthenticationError, Infrai, InfraiError, InvalidArgument, RetryPolicy

pytestmark = pytest.mark.anyio
FAILURES = {
    "an unknown flag": refuse(404, "FLAG_NOT_FOUND"),
    "a failure": refuse(503, "VENDOR_UNAVAILABLE"),
    "a limit": refuse(429, "RATE_LIMITED"),
    "a broken connection": Reply(drop=True),
}
OPTIONS: Any = {"retry": RetryPolicy.none(), "timeout": 30}


@pytest.mark.parametrize("reply", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("default", [True, False])
async def test_a_flag_that_cannot_be_evaluated_is_the_default(reply: Reply, default: bool) -> None:
    with Oracle(lambda _: reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, **OPTIONS) as client:
            state = await client.flags.is_enabled("k", default=default)
            assert (state.enabled, bool(state)) == (default, default)
            value = await client.flags.get_value("k", default=default)
            assert (value.value, value.reason) == (default, "default")
            with pytest.raises(InfraiError):
                await client.flags.is_enabled("k")
    assert "default" not in oracle.seen[0].target  # the capability has no such parameter


def test_the_blocking_client_has_it_too() -> None:
    with Oracle(lambda _: Reply(drop=True)) as oracle, Infrai("k", base_url=oracle.url, **OPTIONS) as client:
        assert client.flags.is_enabled("k", default=True)


async def test_an_answer_goes_before_the_default() -> None:
    with Oracle(lambda _: answer({"enabled": False})) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            assert not await client.flags.is_enabled("k", default=True)


async def test_a_wrong_key_is_no_outage() -> None:
    with Oracle(lambda _: refuse(401, "UNAUTHORIZED")) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            with pytest.raises(AuthenticationError):
                await client.flags.is_enabled("k", default=True)


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
async def test_a_default_that_is_no_truth_is_refused(wrong: Any) -> None:
    client = AsyncInfrai("k", base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidArgument, match="default must be True or False"):
        await client.flags.is_enabled("k", default=wrong)
