"""Every kind of write, and the checkout's button, sent again after a `kill -9`: done once, paid once, same answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio

_SERVE = """
import asyncio, json, sys
from infrai_async.local import LocalGateway
async def main():
    async with LocalGateway(sys.argv[1], postgres_bin=sys.argv[2]) as gateway:
        print(json.dumps({"base_url": gateway.base_url, "api_key": gateway.api_key}), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
KINDS = [
    ("/v1/flags/set", lambda name: {"key": name}, "0.0001"),
    ("/v1/storage/buckets", lambda name: {"bucket": name}, "0.0001"),
    ("/v1/cdn/distribution/create", lambda name: {"origin": name}, "0.001"),
    ("/v1/account/topup", lambda name: {"amount_usd": 1, "return_url": f"https://{name}.test/"}, "0"),
    ("/v1/activate", lambda name: {"device_kind": name}, "0"),
]
CALLS = [
    (path, body(f"n{number}"), f"key {path} {number}", price) for number in range(40) for path, body, price in KINDS
]


@asynccontextmanager
async def killed(data_dir: Path, postgres_bin: Path) -> AsyncIterator[Any]:
    """A gateway in a process of its own, killed without warning at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVE, str(data_dir), str(postgres_bin), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield type("Address", (), json.loads(await process.stdout.readline()))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()


async def unless_killed(asking: Any) -> Any:
    try:
        return await asking
    except aiohttp.ClientError:
        return None


@pytest.mark.parametrize("acknowledged", [1, 20, 90, 170])
async def test_what_is_sent_again_after_a_kill_is_done_once(
    without_postgres: Any, ask_as: Any, acknowledged: int
) -> None:
    answers: dict[str, Any] = {}

    async def send(api: Any, turns: asyncio.Semaphore, call: Any) -> None:
        path, body, key, _ = call
        async with turns:
            answer = await unless_killed(api.post(path, body, key=key))
            if answer is not None:
                answers[key] = answer

    async with killed(**without_postgres) as address:
        api, turns = ask_as(address), asyncio.Semaphore(16)
        sending = [asyncio.create_task(send(api, turns, call)) for call in CALLS]
        while len(answers) < acknowledged:
            await asyncio.sleep(0)
    await asyncio.gather(*sending)
    assert acknowledged <= len(answers) < len(CALLS), "killed too late to learn anything"

    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        again = {key: await api.post(path, body, key=key) for path, body, key, _ in CALLS}
        for key, first in answers.items():
            assert (_lasting(again[key].data), again[key].cost) == (_lasting(first.data), 0)
        spent = sum(Decimal(price) for *_, price in CALLS)
        assert Decimal(repr(await api.balance())) == 2 - spent
        for listed in ("/v1/flags/list", "/v1/storage/buckets", "/v1/cdn/distribution/list"):
            assert len((await api.get(f"{listed}?limit=100")).data["items"]) == 40
        accounts = {again[key].data["account_id"] for *_, key, _ in CALLS if key.startswith("key /v1/activate")}
        assert len(accounts) == 40


def _lasting(data: Any) -> Any:
    """An answer without the addresses, which follow the gateway's port."""
    return {name: value for name, value in data.items() if "url" not in name}


@pytest.mark.parametrize("acknowledged", [0, 1, 8])
async def test_a_payment_that_a_kill_interrupted_counts_once(
    without_postgres: Any, ask_as: Any, acknowledged: int
) -> None:
    paid: list[str] = []

    async def press(api: Any, path: str) -> None:
        async with api.session.post(api.base_url + path) as page:
            assert page.status == 200
            paid.append(path)

    async with killed(**without_postgres) as address:
        api = ask_as(address)
        made = [await api.post("/v1/account/topup", {"amount_usd": 1}) for _ in range(30)]
        paths = [answer.data["checkout_url"].removeprefix(api.base_url) for answer in made]
        pressing = [asyncio.create_task(unless_killed(press(api, path))) for path in paths]
        while len(paid) < acknowledged:
            await asyncio.sleep(0)
    await asyncio.gather(*pressing)

    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        assert 2 + len(paid) <= await api.balance() <= 32
        for _ in range(2):
            await asyncio.gather(*(press(api, path) for path in paths))
            assert await api.balance() == 32
