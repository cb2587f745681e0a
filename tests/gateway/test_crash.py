"""Killed at any moment: what was acknowledged is there, what was begun is finished once."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from support.crash import Kind, World
from support.crash_kinds import Buckets, Databases, Distributions, Flags, Objects, Rows, TopUps

from infrai_async.local import LocalGateway
from infrai_async.local.postgres.data_dirs import cluster_dir_of
from infrai_async.local.postgres.databases import Postgres

pytestmark = pytest.mark.anyio

_KILLS = int(os.environ.get("INFRAI_CRASH_KILLS", "12"))
"""Kills under load and in the middle of starts; `nox -s soak` makes more."""
_ENDS = ("gateway", "gateway", "both", "both", "servers first", "postmaster", "while starting")


@pytest.mark.timeout(300 + 30 * _KILLS)
async def test_killed_again_and_again_under_load_it_keeps_what_it_answered(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Reproduce with INFRAI_CRASH_SEED; the moments are those of the machine, the choices are the seed's."""
    seed = int(os.environ.get("INFRAI_CRASH_SEED") or secrets.randbits(32))
    world = World(tmp_path / "data", session, seed)
    databases, buckets = Databases(world), Buckets(world)
    kinds = [databases, Rows(world, databases), buckets, Distributions(world), Flags(world), TopUps(world)]
    kinds.append(Objects(world, buckets))
    begun = time.monotonic()
    try:
        await _kill_while_starting(world, 3)
        await world.gateway.start()
        what = ""
        while world.count["kills"] < _KILLS or world.count["in the middle of a database"] < _KILLS / 4:
            assert world.count["kills"] < 4 * _KILLS, f"hardly ever in the middle of making a database: {world.count}"
            what = world.random.choice([end for end in _ENDS if end != what])
            await _live_and_die(world, kinds, what)
            await world.settle()
            await asyncio.gather(*(kind.check() for kind in kinds))
            await world.check_wallet()
            world.gateway.check_log()
            print(f"{time.monotonic() - begun:.1f} s: {what}, start {world.gateway.starts[-1]:.2f} s")
    except BaseException:
        print(f"INFRAI_CRASH_SEED={seed}", world.count, world.gateway.log.read_text()[-4000:], sep="\n")
        raise
    finally:
        await world.gateway.stop()
        world.gateway.kill_servers()
    starts = sorted(world.gateway.starts)
    print(world.count)
    print(f"{time.monotonic() - begun:.0f} s, starts {starts[len(starts) // 2]:.2f} s, at most {starts[-1]:.2f} s")


async def _live_and_die(world: World, kinds: Sequence[Kind], what: str) -> None:
    """Kill it under load; afterwards it is there again."""
    enough = asyncio.Event()
    load = asyncio.create_task(world.load(kinds, enough))
    await asyncio.wait({load}, timeout=world.random.uniform(0.05, 0.4))
    await _aim(world)
    await _kill(world, what)
    enough.set()
    await load
    if world.state(_MAKING):
        world.count["in the middle of a database"] += 1
    world.count["kills"] += 1
    world.count[f"killed: {what}"] += 1
    if what == "while starting":
        await _kill_while_starting(world, 1)
    if what != "postmaster":
        await world.gateway.start()


_MAKING = "select 1 from operations where state = 'running' and capability not like '%.delete'"


async def _aim(world: World) -> None:
    """As often as not, wait until the middle of making a database."""
    if world.random.random() < 0.5:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while not world.makes_a_database:
                    await asyncio.sleep(0.002)
        await asyncio.sleep(world.random.uniform(0, 0.06))


async def _kill(world: World, what: str) -> None:
    if what == "postmaster":
        return world.gateway.kill_postmaster()
    if what == "servers first":
        world.gateway.kill_servers()
        await asyncio.sleep(world.random.uniform(0, 0.05))
    await world.gateway.kill()
    if what == "both":
        world.gateway.kill_servers()
    return None


async def _kill_while_starting(world: World, times: int) -> None:
    for _ in range(times):
        await world.gateway.spawn()
        await asyncio.sleep(world.random.uniform(0.2, 0.9))
        await world.gateway.kill()
        world.count["kills"] += 1


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


async def test_databases_that_the_state_does_not_know_are_dropped_and_named(
    tmp_path: Path, ask_as: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with LocalGateway(tmp_path) as gateway:
        kept, lost = await ask_as(gateway).project("kept"), await ask_as(gateway).project("lost")
    _rewrite(tmp_path, "delete from databases where name = (select database from projects where name = 'lost')")
    async with LocalGateway(tmp_path) as gateway:
        assert await _select_1(await _get(ask_as(gateway), kept)) == 1
    unknown = _name(lost)
    assert f"dropping 1 databases that the state does not know: {unknown}" in caplog.messages
    assert await _databases(tmp_path) == {_name(kept)}


async def test_deletions_and_creations_that_were_cut_short_are_finished_and_told(
    tmp_path: Path, ask_as: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "infrai_async.local")
    async with LocalGateway(tmp_path) as gateway:
        kept, doomed = await ask_as(gateway).project("kept"), await ask_as(gateway).project("doomed")
    _rewrite(
        tmp_path,
        "update operations set state = 'running'",
        f"update databases set doomed = 1 where name = '{_name(doomed)}'",
        "delete from projects where name = 'doomed'",
        "delete from operations where data like '%doomed%'",
    )
    async with LocalGateway(tmp_path) as gateway:
        assert (await ask_as(gateway).get("/v1/db/project/list")).data["items"] == [kept]
    assert f"dropping 1 databases whose deletion was interrupted: {_name(doomed)}" in caplog.messages
    assert "resuming 1 interrupted operations" in caplog.messages
    assert await _databases(tmp_path) == {_name(kept)}


async def test_directories_of_databases_that_never_came_to_be_are_removed_and_named(
    tmp_path: Path, ask_as: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As they are left by a server that dies in the middle of making one; its own recovery does not look for them."""
    async with LocalGateway(tmp_path) as gateway:
        project = await ask_as(gateway).project()
        base = cluster_dir_of(tmp_path / "postgres") / "data" / "base"
    before = {path.name for path in base.iterdir()}
    for number in ("4000000000", "3999999999"):
        (base / number).mkdir()
        (base / number / "1259").write_bytes(b"x" * 8192)
    async with LocalGateway(tmp_path) as gateway:
        assert await _select_1(await _get(ask_as(gateway), project)) == 1
    assert {path.name for path in base.iterdir()} == before
    assert "removing 2 directories that belong to no database: 3999999999, 4000000000" in caplog.messages


async def _get(api: Any, project: Any) -> Any:
    return (await api.get(f"/v1/db/project/get/{project['id']}")).data


def _name(resource: Any) -> str:
    return str(resource["connection_uri"].rpartition("/")[2])
