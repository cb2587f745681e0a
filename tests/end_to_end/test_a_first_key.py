"""From nothing to a key that works: activation, the credentials file, and paying when the credit is gone."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from infrai_async import AsyncInfrai, ConfigurationError, Infrai, InsufficientCreditError
from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalGateway]:
    nowhere = tmp_path_factory.mktemp("no-postgres-here")
    async with LocalGateway(postgres_bin=nowhere, credit="0.0002") as running:
        yield running


def credentials() -> Path:
    return Path(os.environ["HOME"], ".infrai", "credentials")


async def activate_and_use(base_url: str) -> str:
    with pytest.raises(ConfigurationError):
        async with AsyncInfrai(base_url=base_url) as nobody:
            await nobody.account.balance()
    async with AsyncInfrai(base_url=base_url) as nobody:
        key = (await nobody.account.activate()).primary_api_key
    async with AsyncInfrai(base_url=base_url) as somebody:
        assert (await somebody.account.balance()).balance_usd == Decimal("0.0002")
    return key


async def test_activation_leaves_a_file_that_works_and_is_its_owners_alone(gateway: LocalGateway) -> None:
    key = await activate_and_use(gateway.base_url)
    assert json.loads(credentials().read_text()) == {"api_key": key}
    assert stat.S_IMODE(credentials().stat().st_mode) == 0o600


async def test_the_blocking_client_does_the_same_and_keeps_the_file_that_was_there(gateway: LocalGateway) -> None:
    def work() -> list[str]:
        keys = []
        for _ in range(2):
            with Infrai(base_url=gateway.base_url) as client:
                keys.append(client.account.activate().primary_api_key)
            with Infrai(base_url=gateway.base_url) as client:
                assert client.account.balance().balance_usd == Decimal("0.0002")
        return keys

    first, second = await asyncio.to_thread(work)
    assert json.loads(credentials().read_text()) == {"api_key": second}
    assert json.loads(credentials().with_name("credentials.previous").read_text()) == {"api_key": first}
    assert stat.S_IMODE(credentials().stat().st_mode) == 0o600


async def test_who_runs_out_of_credit_pays_where_the_error_says_and_goes_on(gateway: LocalGateway) -> None:
    async with AsyncInfrai(base_url=gateway.base_url) as nobody:
        await nobody.account.activate()
    async with AsyncInfrai(base_url=gateway.base_url) as client, aiohttp.ClientSession() as browser:
        for number in range(2):
            await client.flags.set(f"{number}", enabled=True)
        with pytest.raises(InsufficientCreditError) as caught:
            await client.flags.set("one too many", enabled=True)
        assert caught.value.checkout_url is not None
        async with browser.post(caught.value.checkout_url, data={"amount_usd": "1"}) as page:
            assert page.status == 200
        await client.flags.set("one too many", enabled=True)
        assert (await client.account.balance()).balance_usd == Decimal("0.9999")


async def test_a_top_up_is_paid_at_its_checkout_url(gateway: LocalGateway) -> None:
    async with (
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client,
        aiohttp.ClientSession() as browser,
    ):
        topup = await client.account.topup(amount_usd=Decimal("5.50"), return_url="https://shop.test/?a=1&b=2")
        assert topup.checkout_url is not None
        for _ in range(2):
            async with browser.post(topup.checkout_url) as page:
                assert 'href="https://shop.test/?a=1&amp;b=2"' in await page.text()
        assert (await client.account.balance()).balance_usd == Decimal("5.5002")
