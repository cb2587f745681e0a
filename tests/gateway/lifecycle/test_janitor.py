"""What is cleared up in the background, and what that survives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from infrai_async.local import LocalGateway
from infrai_async.local.postgres.databases import Postgres

pytestmark = pytest.mark.anyio


async def test_a_failure_does_not_end_it(tmp_path: Path, ask_as: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with LocalGateway(tmp_path) as gateway, asyncio.timeout(60):
        api, parts = ask_as(gateway), gateway._running
        project = await api.project()
        await rename(parts, "databases", "away")
        parts.wake()
        while "the cleanup failed" not in caplog.text:
            await asyncio.sleep(0.01)
        await rename(parts, "away", "databases")
        await api.delete(f"/v1/db/project/delete/{project['id']}")
        while await parts.check_postgres().databases():
            await asyncio.sleep(0.01)


async def rename(parts: Any, before: str, after: str) -> None:
    await parts.store.run(
        lambda connection: connection.exec_driver_sql(f"alter table {before} rename to {after}").close()
    )


async def test_while_much_is_dropped_new_databases_need_not_wait_for_all_of_it(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop, made, begun = Postgres.drop, asyncio.Event(), 0

    async def drop_the_last_ones_later(postgres: Postgres, name: str) -> None:
        nonlocal begun
        begun += 1
        if begun > 12:
            await made.wait()
        await drop(postgres, name)

    monkeypatch.setattr(Postgres, "drop", drop_the_last_ones_later)
    async with LocalGateway(tmp_path) as gateway, asyncio.timeout(60):
        api, parts = ask_as(gateway), gateway._running
        projects = await asyncio.gather(*(api.project(f"p{number}") for number in range(16)))
        await asyncio.gather(*(api.delete(f"/v1/db/project/delete/{project['id']}") for project in projects))
        await api.project("new")
        made.set()
        assert len(await parts.check_postgres().databases()) > 1, "all was dropped first"
        while len(await parts.check_postgres().databases()) > 1:
            await asyncio.sleep(0.01)
