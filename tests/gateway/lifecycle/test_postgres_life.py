"""The gateway's Postgres from its first moment to its last: it dies, its disk is full, it takes its time to stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from support.patience import LONG, PATIENCE, eventually, until

from infrai_async.local import LocalGateway
from infrai_async.local.lifecycle import supervisor
from infrai_async.local.postgres import databases, server, stale_processes
from infrai_async.local.postgres.data_dirs import cluster_dir_of
from infrai_async.local.postgres.server import PostgresServer
from infrai_async.local.postgres.stale_processes import stop_servers
from infrai_async.local.services import base

pytestmark = pytest.mark.anyio


def postmaster(data_dir: Path) -> int:
    return int((cluster_dir_of(data_dir / "postgres") / "data" / "postmaster.pid").read_text().split("\n")[0])


def log_of(data_dir: Path) -> str:
    return (cluster_dir_of(data_dir / "postgres") / "log").read_text()


@contextmanager
def stopped_checkpointer(data_dir: Path) -> Iterator[None]:
    """A server that cannot finish its shutdown, as if it had very much to write, until the end of the block."""
    writers = []
    for child in psutil.Process(postmaster(data_dir)).children():
        with suppress(psutil.NoSuchProcess):  # a session that has just ended
            writers += [child] * ("checkpointer" in " ".join(child.cmdline()))
    (writer,) = writers
    writer.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            writer.resume()


async def kept(data_dir: Path, ask_as: Any) -> None:
    """A database with a row, to be found again."""
    async with LocalGateway(data_dir) as gateway:
        connection = await asyncpg.connect((await ask_as(gateway).project())["connection_uri"])
        await connection.execute("create table t as select 7 as x")
        await connection.close()


async def rows(gateway: LocalGateway, ask_as: Any) -> list[int]:
    (project,) = (await ask_as(gateway).get("/v1/db/project/list")).data["items"]
    connection = await asyncpg.connect(project["connection_uri"])
    try:
        return [row[0] for row in await connection.fetch("select x from t")]
    finally:
        await connection.close()


# --- start ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
@pytest.mark.parametrize("before", ["connected", "remove strays"])
async def test_one_that_dies_in_its_first_moments_is_started_again(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, before: str
) -> None:
    deaths = []

    def die_once() -> None:
        if not deaths:
            deaths.append(postmaster(tmp_path))
            os.kill(deaths[0], number)
            with suppress(psutil.NoSuchProcess):
                psutil.Process(deaths[0]).wait(PATIENCE)

    connected, remove_strays = databases.connected, databases.Postgres._remove_strays

    async def late(*arguments: Any) -> Any:
        await asyncio.to_thread(die_once)
        return await connected(*arguments)

    async def too_late(postgres: databases.Postgres) -> None:
        await asyncio.to_thread(die_once)
        await remove_strays(postgres)

    if before == "connected":
        monkeypatch.setattr(databases, "connected", late)
    else:
        monkeypatch.setattr(databases.Postgres, "_remove_strays", too_late)
    async with LocalGateway(tmp_path) as gateway:
        assert (await ask_as(gateway).project("n"))["name"] == "n"
    assert len(deaths) == 1


async def test_one_that_does_not_start_is_tried_again(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", -1)
    async with LocalGateway(tmp_path) as gateway:
        asking = asyncio.create_task(ask_as(gateway).project("n"))
        log = tmp_path / "nothing yet"
        while "max_connections" not in (log.read_text() if log.exists() else ""):
            await asyncio.sleep(0.01)
            with suppress(OSError, databases.PostgresUnavailable):
                log = cluster_dir_of(tmp_path / "postgres") / "log"
        monkeypatch.undo()
        assert (await asking)["name"] == "n"


async def test_one_that_never_starts_is_given_up_with_a_reason_that_names_what_was_given(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_PAUSES", (0.0, 0.1))
    monkeypatch.setattr(server, "MAX_CONNECTIONS", -1)
    async with LocalGateway(tmp_path) as gateway:
        assert "does not start; see its log" in str(await gateway.database_fault())
        answer = await ask_as(gateway).post("/v1/db/project/create", {"name": "n"})
    assert (answer.status, answer.code, answer.error["retryable"]) == (503, "VENDOR_UNAVAILABLE", False)
    assert "does not start; see its log" in answer.error["hint"]
    assert "--postgres" not in answer.text


async def test_a_full_disk_is_named_at_once_and_tried_again_for_as_long_as_it_is_full(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept(tmp_path, ask_as)
    monkeypatch.setattr(supervisor, "_PAUSES", (0.0, 0.05))
    starts = []
    started = PostgresServer._started

    async def counted(server: PostgresServer, log: Any) -> bool:
        starts.append(log)
        return await started(server, log)

    with monkeypatch.context() as full:
        full.setattr(server, "MAX_CONNECTIONS", -1)
        full.setattr(server, "_SEGMENT", 1 << 62)
        full.setattr(PostgresServer, "_started", counted)
        async with LocalGateway(tmp_path) as gateway:
            assert "no space left on device" in str(await gateway.database_fault())
            await eventually(lambda: len(starts) > 6)
            answer = await ask_as(gateway).get("/v1/db/project/list")
            assert (answer.status, answer.code, answer.error["retryable"]) == (503, "VENDOR_UNAVAILABLE", True)
            assert "no space left on device" in answer.error["hint"]
            assert (await ask_as(gateway).get("/v1/account/balance")).status == 200
            full.undo()
            await eventually(lambda: gateway._running.postgres is not None)
            assert await gateway.database_fault() is None
            assert await rows(gateway, ask_as) == [7]


@pytest.mark.parametrize("text", ["FATAL: could not write: No space left on device", ""])
async def test_what_the_log_says_of_the_disk_counts_since_the_last_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text("PANIC: could not write: No space left on device\n")
    one = PostgresServer(tmp_path, tmp_path, None, None)  # type: ignore[arg-type]
    with one._log() as log:
        log.write(text.encode())
    assert one.is_disk_full() == bool(text)
    assert ("no space left on device" in str(one.failure("It does not run"))) == bool(text)


async def test_it_gets_nothing_of_the_environment_but_what_it_needs(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    run, spawn = subprocess.run, asyncio.create_subprocess_exec

    def watched_run(*arguments: Any, **options: Any) -> Any:
        seen.append(options["env"])
        return run(*arguments, **options)

    async def watched_spawn(*arguments: Any, **options: Any) -> Any:
        seen.append(options["env"])
        return await spawn(*arguments, **options)

    for name in ("AWS_SECRET_ACCESS_KEY", "INFRAI_API_KEY", "MY_TOKEN", "PGPASSWORD", "PGDATA"):
        monkeypatch.setenv(name, "hush-hush")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr(subprocess, "run", watched_run)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched_spawn)
    async with LocalGateway(tmp_path) as gateway:
        await ask_as(gateway).project()
        shown = dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{postmaster(tmp_path)}/environ").read_text().strip("\0").split("\0")
        )
    assert shown["TZ"] == "Asia/Tokyo"
    assert shown["PATH"] == os.environ["PATH"]
    assert len(seen) >= 3  # the version, initdb, the server
    for environment in [*seen, shown]:
        assert "hush-hush" not in environment.values()
        assert environment["LC_ALL"] == "C"


async def test_a_recovery_is_never_cut_off_but_calls_do_not_wait_for_ever(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "_LONGEST_WAIT", 0.1)
    monkeypatch.setattr(server, "_SILENCE_AT_END", 0.1)
    recovering, is_ready = [True], PostgresServer._is_ready
    monkeypatch.setattr(PostgresServer, "_is_ready", lambda one, pid: not recovering and is_ready(one, pid))
    async with LocalGateway(tmp_path) as gateway:
        answer = await ask_as(gateway).get("/v1/db/project/list")
        assert (answer.status, answer.code, answer.error["retryable"]) == (503, "VENDOR_UNAVAILABLE", True)
        assert "still starting" in answer.error["message"]
        await eventually(lambda: "Postgres is starting" in caplog.text)
        recovering.clear()
        assert await gateway.database_fault() is None
        assert (await ask_as(gateway).get("/v1/db/project/list")).status == 200


# --- stop ----------------------------------------------------------------------------------------------------------


async def test_a_stop_waits_for_the_checkpoint_and_says_so(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_SILENCE_AT_END", 0.1)
    monkeypatch.setattr(server, "_REMIND", 0.1)
    monkeypatch.setattr(server, "_LOOK", 0.02)
    monkeypatch.setattr(server, "_PATIENCE_AT_END", 0.1)
    gateway = LocalGateway(tmp_path)
    await gateway.start()
    await ask_as(gateway).project()
    with stopped_checkpointer(tmp_path):
        closing = asyncio.create_task(gateway.aclose())
        await eventually(lambda: caplog.text.count("Postgres is writing its data to disk before it stops") >= 3)
        assert not closing.done()
    await closing
    assert re.search(r"received fast shutdown request(?s:.)*database system is shut down", log_of(tmp_path))
    assert "immediate shutdown" not in log_of(tmp_path)


async def test_a_stop_that_is_hurried_loses_nothing(tmp_path: Path, ask_as: Any) -> None:
    await kept(tmp_path, ask_as)
    gateway = LocalGateway(tmp_path)
    for _ in range(2):  # a hurry is over with the stop that it was for
        await gateway.start()
        assert await rows(gateway, ask_as) == [7]
        pid = postmaster(tmp_path)
        with stopped_checkpointer(tmp_path):
            closing = asyncio.create_task(gateway.aclose())
            while "received fast shutdown request" not in log_of(tmp_path):
                await asyncio.sleep(0.01)
            assert not closing.done()
            gateway.hurry()
            await closing
        assert not psutil.pid_exists(pid)
        assert "received immediate shutdown request" in log_of(tmp_path)
        (cluster_dir_of(tmp_path / "postgres") / "log").write_text("")
    async with gateway:
        assert await rows(gateway, ask_as) == [7]
    assert "immediate shutdown" not in log_of(tmp_path)


def test_a_second_signal_hurries_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infrai_async.cli", "local", "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert "base_url" in process.stdout.readline()
        with stopped_checkpointer(tmp_path):
            process.terminate()
            line = process.stderr.readline()
            assert "Postgres is writing its data to disk" in line
            assert "another signal skips that" in line
            process.terminate()
            assert process.wait(LONG) == 0
        assert "immediate shutdown" in log_of(tmp_path)
    finally:
        process.kill()
        process.communicate()
        stop_servers(cluster_dir_of(tmp_path / "postgres") / "data", keep=False)


def test_the_server_of_a_killed_gateway_is_left_the_time_to_stop_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stale_processes, "_PATIENCE", 0.2)
    command = [sys.executable, "-m", "infrai_async.cli", "local", "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    data, pid = cluster_dir_of(tmp_path / "postgres") / "data", postmaster(tmp_path)
    with ThreadPoolExecutor() as threads:
        with stopped_checkpointer(tmp_path):
            stopping = threads.submit(stop_servers, data)
            until(lambda: "its Postgres is being stopped" in caplog.text)
            assert pid in stale_processes._servers(data, pid)
        stopping.result(LONG)
    assert stale_processes._servers(data, pid) == []
    assert "database system is shut down" in log_of(tmp_path)
