"""Starting, closing, and one data directory for one gateway at a time."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import stat
import tempfile
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import psutil
import pytest
from aiohttp import web

from infrai_async.local import LocalGateway, _gateway
from infrai_async.local._errors import RequestRefused
from infrai_async.local._locks import DirectoryInUse
from infrai_async.local.http.host_guard import HostGuard, host_name
from infrai_async.local.lifecycle import supervisor
from infrai_async.local.postgres import server
from infrai_async.local.postgres.data_dirs import cluster_dir_of

pytestmark = pytest.mark.anyio


async def test_the_same_directory_gives_the_same_key_and_another_one_another(
    without_postgres: Any, tmp_path: Path
) -> None:
    keys = []
    for directory in ("one", "one", "two"):
        async with LocalGateway(**without_postgres | {"data_dir": str(tmp_path / directory)}) as gateway:
            keys.append(gateway.api_key)
            assert gateway.base_url.startswith("http://127.0.0.1:")
    assert keys[0] == keys[1] != keys[2]
    assert all(key.startswith("ifr_") for key in keys)


async def test_projects_their_rows_and_addresses_outlive_the_gateway(tmp_path: Path, ask_as: Any) -> None:
    async with LocalGateway(tmp_path) as gateway:
        project = await ask_as(gateway).project()
        connection = await asyncpg.connect(project["connection_uri"])
        await connection.execute("create table t as select 7 as x")
        await connection.close()
    async with LocalGateway(tmp_path) as gateway:
        again = (await ask_as(gateway).get(f"/v1/db/project/get/{project['id']}")).data
        connection = await asyncpg.connect(again["connection_uri"])
        assert await connection.fetchval("select x from t") == 7
        await connection.close()
        assert again | {"connection_uri": ""} == project | {"connection_uri": ""}


async def test_a_second_gateway_on_a_directory_is_refused(without_postgres: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        with pytest.raises(DirectoryInUse, match="another gateway runs on"):
            await LocalGateway(**without_postgres).start()
        assert gateway.base_url
    async with LocalGateway(**without_postgres):
        pass


def _new_since(before: set[psutil.Process]) -> list[psutil.Process]:
    """Processes that were begun meanwhile, except by those of before: other gateways' Postgres begins its own."""
    found = []
    for process in set(psutil.Process().children(recursive=True)) - before:
        with suppress(psutil.NoSuchProcess):
            if before.isdisjoint(process.parents()):
                found.append(process)
    return found


async def test_closing_leaves_no_task_thread_process_or_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    children = set(psutil.Process().children(recursive=True))
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with LocalGateway() as gateway:
        pass
    await gateway.aclose()
    gc.collect()
    assert asyncio.all_tasks() <= tasks  # those of other tests' gateways may end meanwhile
    assert {thread.name for thread in set(threading.enumerate()) - threads if "asyncio" not in thread.name} == set()
    assert _new_since(children) == []
    assert _temporary() == []


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("kept", [True, False])
async def test_cancelled_at_any_moment_it_still_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, kept: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    children = set(psutil.Process().children(recursive=True))
    with anyio.move_on_after(seconds) as scope:
        async with LocalGateway(tmp_path / "data" if kept else None):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert _new_since(children) == []
    assert list(tmp_path.glob("infrai-gateway-*")) == []
    async with LocalGateway(tmp_path / "data"):
        pass  # neither lock is held any more


@pytest.mark.parametrize("steps", range(7))
async def test_cancelled_while_it_takes_its_port_it_gives_it_back(
    without_postgres: Any, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    start, begun = web.TCPSite.start, asyncio.Event()

    async def watched(site: web.TCPSite) -> None:
        begun.set()
        await start(site)

    monkeypatch.setattr(web.TCPSite, "start", watched)
    starting = asyncio.create_task(LocalGateway(**without_postgres).start())
    await begun.wait()
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    gc.collect()  # a socket left open would be a warning, and so an error


async def test_a_close_that_is_cancelled_again_and_again_is_still_whole(tmp_path: Path, ask_as: Any) -> None:
    children = set(psutil.Process().children(recursive=True))
    gateway = LocalGateway(tmp_path)
    await gateway.start()
    await ask_as(gateway).project()
    closing = asyncio.create_task(gateway.aclose())
    for _ in range(5):
        await asyncio.sleep(0.002)
        closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert _new_since(children) == []


async def test_a_postgres_that_dies_comes_back(tmp_path: Path, ask_as: Any) -> None:
    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        project = await api.project()
        for number in (signal.SIGKILL, signal.SIGQUIT):
            home = cluster_dir_of(tmp_path / "postgres")
            os.kill(int((home / "data" / "postmaster.pid").read_text().split()[0]), number)
            key = number.name  # which a passing refusal does not use up
            for _ in range(3):
                answer = await api.post("/v1/db/project/create", {"name": "n"}, key=key)
                refused = answer.status == 503 and answer.code == "VENDOR_UNAVAILABLE" and answer.error["retryable"]
                assert answer.status == 200 or refused
            assert answer.data["name"] == "n"
            connection = await asyncpg.connect(project["connection_uri"])
            assert await connection.fetchval("select 1") == 1
            await connection.close()


async def test_a_postgres_that_cannot_come_back_is_given_up_with_a_reason(
    tmp_path: Path, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_PAUSES", (0.0, 0.1))
    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        await api.project()
        home = cluster_dir_of(tmp_path / "postgres")
        monkeypatch.setattr(server, "MAX_CONNECTIONS", -1)
        os.kill(int((home / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        async with asyncio.timeout(60):
            while (answer := await api.get("/v1/db/project/list")).status == 200 or answer.error["retryable"]:
                pass
        assert "keeps dying" in answer.error["hint"]
        assert (await api.post("/v1/flags/set", {"key": "k"})).status == 200


def _temporary() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("infrai-gateway-*"))


async def test_a_start_that_fails_leaves_nothing_behind(
    without_postgres: Any, ask_as: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with LocalGateway(**without_postgres) as gateway:
        port = int(gateway.base_url.rpartition(":")[2])
        places = set(_temporary())
        with pytest.raises(OSError, match="address already in use"):
            await LocalGateway(postgres_bin=without_postgres["postgres_bin"], port=port).start()
        assert set(_temporary()) == places
        assert await ask_as(gateway).balance() == 2


async def test_without_postgres_all_but_db_works_and_db_says_what_mends_it(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        assert (await api.post("/v1/flags/set", {"key": "k"})).status == 200
        for method, path, body in (("POST", "create", {"name": "a"}), ("GET", "list", None)):
            answer = await api.ask(method, f"/v1/db/project/{path}", body, key="k")
            assert (answer.status, answer.code, answer.cost) == (503, "VENDOR_UNAVAILABLE", 0)
            assert answer.error["hint"]
        assert (await api.get("/v1/discovery/db.project.create")).document["available"] is False
        assert (await api.get("/v1/discovery/flags.set")).document["available"] is True
        assert await api.balance() == 1.9999


async def test_neither_repr_nor_error_shows_a_key() -> None:
    gateway = LocalGateway(postgres_dsn="postgresql://me:tell-nobody@127.0.0.1:1/x")
    assert repr(gateway) == "<LocalGateway not started>"
    with pytest.raises(RuntimeError, match="not started"):
        _ = gateway.api_key
    async with gateway:
        assert repr(gateway) == f"<LocalGateway {gateway.base_url}>"
        assert gateway.api_key not in repr(vars(gateway))
        assert "tell-nobody" not in repr(gateway)
    assert repr(gateway) == "<LocalGateway not started>"


async def test_secrets_lie_in_files_of_their_owner_alone(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        key = (await ask_as(gateway).post("/v1/activate", {}, key="k")).data["primary_api_key"]
        state = without_postgres["data_dir"] / "state"
        for path in (state, *(path for path in state.iterdir() if path.name != "lock")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        stored = b"".join(path.read_bytes() for path in state.iterdir())
        assert key.encode() not in stored
        assert gateway.api_key.encode() not in stored


async def test_a_running_gateway_cannot_be_started_twice(without_postgres: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        with pytest.raises(RuntimeError, match="already running"):
            await gateway.start()


async def test_of_two_starts_at_once_one_is_refused_and_leaves_nothing(
    tmp_path: Path, without_postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gateway = LocalGateway(postgres_bin=without_postgres["postgres_bin"])
    results = await asyncio.gather(gateway.start(), gateway.start(), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), RuntimeError]
    await gateway.aclose()
    assert _temporary() == []


async def test_a_close_waits_for_the_start_and_then_closes(without_postgres: Any) -> None:
    gateway = LocalGateway(**without_postgres)
    starting = asyncio.create_task(gateway.start())
    await asyncio.sleep(0)
    await gateway.aclose()
    await starting
    assert repr(gateway) == "<LocalGateway not started>"
    async with LocalGateway(**without_postgres):
        pass


async def test_who_asks_while_it_still_starts_is_told_whole_addresses(
    without_postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def slowly(path: Path, text: str, **_: object) -> None:
        ask = urllib.request.Request(f"http://127.0.0.1:{text}/v1/activate", data=b"{}", method="POST")
        told.append(json.load(urllib.request.urlopen(ask, timeout=100)))

    monkeypatch.setattr(_gateway, "write_whole", slowly)
    async with LocalGateway(**without_postgres) as gateway:
        assert told[0]["data"]["checkout_url"].startswith(f"{gateway.base_url}/checkout/")


async def test_a_closed_gateway_can_be_started_again(without_postgres: Any, ask_as: Any) -> None:
    gateway = LocalGateway(**without_postgres)
    for _ in range(2):
        async with gateway:
            assert await ask_as(gateway).balance() == 2


async def test_many_answers_at_once_all_come(gateway: LocalGateway, api: Any) -> None:
    answers = await asyncio.gather(*(api.post("/v1/flags/set", {"key": f"k{n}"}) for n in range(300)))
    assert {answer.status for answer in answers} == {200}
    assert await api.balance() == 1.97


async def test_a_call_under_way_is_finished_when_the_gateway_closes(tmp_path: Path, ask_as: Any) -> None:
    async with LocalGateway(tmp_path) as gateway:
        api = ask_as(gateway)
        await api.project("first")
        making = asyncio.create_task(api.project("late"))
        while await api.balance() != 1.998:
            await asyncio.sleep(0.001)
    made = await making
    async with LocalGateway(tmp_path) as gateway:
        listed = (await ask_as(gateway).get("/v1/db/project/list")).data["items"]
        assert [project["id"] for project in listed][1:] == [made["id"]]


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("localhost", "localhost"), ("127.0.0.2", "127.0.0.2")]
)
async def test_the_base_url_works_whatever_was_bound(
    without_postgres: Any, ask_as: Any, host: str, reached: str
) -> None:
    async with LocalGateway(**without_postgres, host=host) as gateway:
        assert gateway.base_url.startswith(f"http://{reached}:")
        assert await ask_as(gateway).balance() == 2


@pytest.mark.parametrize("name", ["fe80::1", "[2001:DB8::1]", "Box.lan."])
def test_addresses_and_names_are_compared_without_brackets_case_and_port(name: str) -> None:
    guard = HostGuard([name])
    for host in ("[fe80::1]:80", "[2001:db8::1]", "box.lan:8080"):
        if host_name(host) == host_name(name):
            assert guard.check(host) == host_name(name)
        else:
            with pytest.raises(RequestRefused):
                guard.check(host)
