"""Killed at any moment: what was acknowledged is there, what was begun is finished once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from infrai_async.local import LocalGateway
from infrai_async.local._postgres import Postgres

pytestmark = pytest.mark.anyio

_SERVE = """
import asyncio, json, sys
from infrai_async.local import LocalGateway
async def main():
    async with LocalGateway(sys.argv[1]) as gateway:
        print(json.dumps([gateway.base_url, gateway.api_key]), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@asynccontextmanager
async def killed_gateway(data_dir: Path) -> AsyncIterator[list[str]]:
    """A gateway in a process of its own, killed without warning at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVE, str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()


async def test_after_kill_9_nothing_acknowledged_is_lost_and_what_was_begun_exists_once(
    tmp_path: Path, session: aiohttp.ClientSession, ask_as: Any
) -> None:
    acknowledged: dict[str, Any] = {}

    async def create(api: Any, key: str) -> None:
        answer = await api.post("/v1/db/project/create", {"name": key}, key=key)
        acknowledged[key] = answer.data

    keys = [f"p{number}" for number in range(24)]
    async with killed_gateway(tmp_path) as (base_url, api_key):
        api = ask_as(type("Address", (), {"base_url": base_url, "api_key": api_key}))
        await api.post("/v1/flags/set", {"key": "before"}, key="flag")
        making = [asyncio.create_task(create(api, key)) for key in keys]
        while len(acknowledged) < 5:
            await asyncio.sleep(0.005)
    await asyncio.gather(*making, return_exceptions=True)
    assert 5 <= len(acknowledged) < len(keys), "killed too late to learn anything"

    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        there = {project["name"]: project for project in (await api.get("/v1/db/project/list")).data["items"]}
        assert {name: there[name]["id"] for name in acknowledged} == {name: p["id"] for name, p in acknowledged.items()}
        for name in there:
            replay = await api.post("/v1/db/project/create", {"name": name}, key=name)
            assert (replay.data["id"], replay.cost) == (there[name]["id"], 0)
        await asyncio.gather(*(create(api, key) for key in keys))
        projects = (await api.get("/v1/db/project/list")).data["items"]
        assert sorted(project["name"] for project in projects) == sorted(keys)
        assert await asyncio.gather(*(_select_1(project) for project in projects)) == [1] * len(keys)
        spent = Decimal("0.001") * len(keys) + Decimal("0.0001") + 2 * Decimal("0.00001")
        assert Decimal(repr(await api.balance())) == 2 - spent
        assert (await api.post("/v1/flags/set", {"key": "before"}, key="flag")).cost == 0
    assert len(await _databases(tmp_path)) == len(keys)


async def _select_1(project: Any) -> Any:
    connection = await asyncpg.connect(project["connection_uri"])
    try:
        return await connection.fetchval("select 1")
    finally:
        await connection.close()


async def _databases(data_dir: Path) -> frozenset[str]:
    postgres = await Postgres.start(data_dir)
    try:
        return await postgres.databases()
    finally:
        await postgres.aclose()


def _rewrite(data_dir: Path, *statements: str) -> None:
    with closing(sqlite3.connect(data_dir / "state" / "state.db")) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.mark.parametrize("effect_done", [True, False])
async def test_work_that_was_running_is_finished_at_the_start(tmp_path: Path, ask_as: Any, effect_done: bool) -> None:
    """The state is put back to where it stood after the first transaction; before or after the effect."""
    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        project = await api.project()
        body = {"project_id": project["id"], "branch_name": "b"}
        branch = (await api.post("/v1/db/branch/create", body, key="k")).data
        balance = await api.balance()
    if not effect_done:
        postgres = await Postgres.start(tmp_path)
        await postgres.drop(branch["connection_uri"].rpartition("/")[2])
        await postgres.aclose()
    _rewrite(
        tmp_path,
        "update operations set state = 'running' where capability = 'db.branch.create'",
        "update branches set seq = null",
    )
    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        listed = (await api.get("/v1/db/branch/list")).data["items"]
        assert [item["id"] for item in listed] == [branch["id"]]
        assert await _select_1(listed[0]) == 1
        replay = await api.post("/v1/db/branch/create", body, key="k")
        assert (replay.data["id"], replay.cost) == (branch["id"], 0)
        assert Decimal(repr(await api.balance())) == Decimal(repr(balance)) - Decimal("0.00001")
    assert len(await _databases(tmp_path)) == 2


async def test_work_whose_source_is_gone_is_taken_back_at_the_start(tmp_path: Path, ask_as: Any) -> None:
    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        project = await api.project()
        body = {"project_id": project["id"], "branch_name": "b"}
        branch = (await api.post("/v1/db/branch/create", body, key="k")).data
        await api.delete(f"/v1/db/project/delete/{project['id']}")
        balance = await api.balance()
        database = branch["connection_uri"].rpartition("/")[2]
    _rewrite(
        tmp_path,
        "update operations set state = 'running' where capability = 'db.branch.create'",
        f"insert or replace into databases values ('{database}', 0)",
    )
    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        assert (await api.get("/v1/db/branch/list")).data["items"] == []
        refund = Decimal("0.001") - Decimal("0.00001")
        assert Decimal(repr(await api.balance())) == Decimal(repr(balance)) + refund
        # What was begun and finally refused stays so under its key; another key begins anew.
        assert (await api.post("/v1/db/branch/create", body, key="k")).code == "CONFLICT"
        assert (await api.post("/v1/db/branch/create", body, key="l")).code == "DB_PROJECT_NOT_FOUND"
    assert await _databases(tmp_path) == frozenset()


async def test_databases_that_the_state_does_not_know_are_dropped(tmp_path: Path, ask_as: Any) -> None:
    async with LocalGateway(tmp_path) as gateway:
        kept = await ask_as(gateway).project("kept")
        await ask_as(gateway).project("lost")
    _rewrite(tmp_path, "delete from databases where name = (select database from projects where name = 'lost')")
    async with LocalGateway(tmp_path):
        pass
    assert await _databases(tmp_path) == {kept["connection_uri"].rpartition("/")[2]}
