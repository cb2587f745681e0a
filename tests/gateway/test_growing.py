"""Gateways that share a Postgres which they do not rule: one account, each key once, and none dies with its work."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from support.existing import ordinary_role, s3_store

from infrai_async import AsyncInfrai, RetryPolicy
from infrai_async.errors import BadRequestError, ConflictError, NotFoundError, ServerError, TransportError
from infrai_async.local import LocalGateway
from infrai_async.local._errors import RequestRefused
from infrai_async.local.lifecycle import heartbeat
from infrai_async.local.lifecycle.janitor import Janitor
from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.state.postgres_store import SharedStore
from infrai_async.local.state.tables import COUNTER

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a role without superuser on a server of its own."""
    postgres = await Postgres.start(tmp_path_factory.mktemp("server"))
    try:
        async with ordinary_role(postgres) as dsn:
            yield dsn
    finally:
        await postgres.aclose(remove=True)


_stores = iter(range(1, 1000))


async def new_store(server: str) -> str:
    """The address of another database on the server, and so of another account."""
    name = f"store_{next(_stores)}"
    await query(server, f"create database {name}")
    return urlsplit(server)._replace(path=f"/{name}").geturl()


@pytest.fixture
async def dsn(server: str) -> str:
    return await new_store(server)


async def query(dsn: str, statement: str, *values: Any, **options: Any) -> list[Any]:
    connection = await asyncpg.connect(dsn, timeout=10, **options)
    try:
        return [row[0] for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


def state_of(dsn: str) -> str:
    return f"infrai_state_{urlsplit(dsn).path[1:]}"


async def in_state(dsn: str, statement: str) -> list[Any]:
    return await query(dsn, statement, database=state_of(dsn))


@dataclass
class Served:
    """A gateway in a process of its own, and a client of it."""

    data_dir: Path
    process: asyncio.subprocess.Process
    base_url: str
    api_key: str
    client: AsyncInfrai

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


_SERVE = """
import sys
from infrai_async.cli.__main__ import main
from infrai_async.local.lifecycle import heartbeat
heartbeat._BEAT = float(sys.argv.pop(1))
sys.exit(main())
"""
_QUICK = 0.25
"""Seconds between two beats where a test waits for the last of them."""


@asynccontextmanager
async def serving(data_dir: Path, dsn: str, beat: float = heartbeat._BEAT) -> AsyncIterator[Served]:
    command = ("-c", _SERVE, str(beat), "local", "--data-dir", str(data_dir), "--postgres-dsn", dsn)
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        told = json.loads(await process.stdout.readline())
        async with AsyncInfrai(
            told["api_key"], base_url=told["base_url"], retry=RetryPolicy.none(), timeout=60, allow_http=True
        ) as client:
            yield Served(data_dir, process, told["base_url"], told["api_key"], client)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.communicate()


@asynccontextmanager
async def two(base: Path, dsn: str, beat: float = heartbeat._BEAT) -> AsyncIterator[tuple[Served, Served]]:
    """Two gateways over one store, started at once."""
    async with AsyncExitStack() as stack:
        starting = [stack.enter_async_context(serving(base / name, dsn, beat)) for name in ("a", "b")]
        first, second = await asyncio.gather(*starting)
        yield first, second


@pytest.fixture(scope="module")
async def shared(server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, Served]]:
    """Two that no test stops."""
    async with two(tmp_path_factory.mktemp("shared"), await new_store(server)) as both:
        yield both


@pytest.fixture
async def account(shared: tuple[Served, Served]) -> AsyncIterator[tuple[AsyncInfrai, AsyncInfrai]]:
    """An account of the test's own with 2.00 in its wallet, asked through either gateway."""
    key = (await shared[0].client.account.activate()).primary_api_key
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncInfrai(key, base_url=one.base_url, timeout=60, allow_http=True))
            for one in shared
        ]
        yield clients[0], clients[1]


async def test_two_that_start_at_once_are_one_account(shared: tuple[Served, Served], account: Any) -> None:
    one, other = shared
    assert one.api_key == other.api_key
    here, there = account
    project = await here.db.project.create(name="shop")
    assert (await there.db.project.get(project.id)).connection_uri == project.connection_uri
    assert await query(project.connection_uri, "select current_user") == [urlsplit(project.connection_uri).path[1:]]
    await there.flags.set(key="dark", type="bool", default_value=True)
    assert (await here.flags.get_value(key="dark")).value is True
    await there.db.project.delete(project.id)
    with pytest.raises(NotFoundError):
        await here.db.project.get(project.id)


async def test_a_cursor_of_one_goes_on_at_the_other(account: Any) -> None:
    here, there = account
    for number in range(7):
        await (here, there)[number % 2].flags.set(key=f"f{number}", type="bool")
    cursor = here.flags.list(limit=3)
    first = (await cursor.page()).items
    rest = await there.flags.list(limit=3, cursor=cursor.next_cursor).collect()
    assert [flag.key for flag in (*first, *rest)] == [f"f{number}" for number in range(7)]


async def test_one_key_at_both_at_once_has_one_effect_and_one_answer(account: Any) -> None:
    here, there = account
    for number in range(10):
        pair = await asyncio.gather(
            *(one.db.project.create(name=f"p{number}", idempotency_key=f"k{number}") for one in account)
        )
        assert len({(project.id, project.connection_uri) for project in pair}) == 1
        assert sorted(project.metadata.cost_usd for project in pair) == [0, Decimal("0.001")]
        flags = await asyncio.gather(
            *(one.flags.set(key="f", type="bool", idempotency_key=f"k{number}") for one in account)
        )
        assert [flag.version for flag in flags] == [number + 1] * 2
        assert sorted(flag.metadata.cost_usd for flag in flags) == [0, Decimal("0.0001")]
    listed = await there.db.project.list().collect()
    assert [project.name for project in listed] == [f"p{number}" for number in range(10)]
    assert (await here.account.balance()).balance_usd == 2 - 10 * Decimal("0.0011") - Decimal("0.00001")
    with pytest.raises(ConflictError):
        await there.db.project.create(name="another", idempotency_key="k0")


async def test_the_wallet_is_exact_after_many_writes_over_both(account: Any) -> None:
    spent: list[Decimal] = []

    async def write(number: int) -> None:
        client = account[number % 2]
        flag = await client.flags.set(key=f"f{number % 50}", type="number", default_value=number)
        spent.append(flag.metadata.cost_usd)
        spent.append((await client.flags.get(key=flag.key)).metadata.cost_usd)

    await asyncio.gather(*(write(number) for number in range(300)))
    assert sum(spent) == 300 * (Decimal("0.0001") + Decimal("0.00001"))
    for client in account:
        assert (await client.account.balance()).balance_usd == 2 - sum(spent)


async def test_no_update_of_a_flag_is_lost(account: Any) -> None:
    here, there = account
    await here.flags.set(key="count", type="number", default_value=0)
    conflicts = 0

    async def count_up(client: AsyncInfrai) -> None:
        nonlocal conflicts
        done = 0
        while done < 10:
            flag = await client.flags.get(key="count")
            try:
                await client.flags.set(key="count", default_value=flag.default_value + 1, version=flag.version)
                done += 1
            except ConflictError:
                conflicts += 1

    await asyncio.gather(*(count_up(client) for client in (here, there, here, there)))
    flag = await there.flags.get(key="count")
    assert (flag.default_value, flag.version) == (40, 41)
    assert conflicts, "they never met"


async def test_branches_of_one_source_made_over_both_at_once_are_all_whole(account: Any) -> None:
    project = await account[0].db.project.create(name="shop")
    await query(project.connection_uri, "create table t as select 1 as x")
    branches = await asyncio.gather(
        *(account[number % 2].db.branch.create(project_id=project.id, branch_name=f"b{number}") for number in range(6))
    )
    for branch in branches:
        await query(branch.connection_uri, "alter table t add y int")
        assert await query(branch.connection_uri, "select x from t") == [1]
    await query(project.connection_uri, "drop table t")


async def test_what_a_text_cannot_hold_is_refused(account: Any) -> None:
    for client in account:
        with pytest.raises(BadRequestError, match="cannot be stored"):
            await client.flags.set(key="f", type="bool", description="a\0b")


async def test_the_writers_of_two_take_turns_and_spare_each_others_jobs(dsn: str) -> None:
    def job(number: int, connection: Connection) -> int:
        last = connection.scalar(sa.select(COUNTER.c.last))
        connection.execute(COUNTER.update().values(last=last + 1))
        if number % 3 == 0:
            raise KeyError(number)
        return number

    stores = SharedStore(dsn), SharedStore(dsn)
    try:
        await asyncio.gather(*(store.open() for store in stores))
        jobs = [stores[number % 2].run(partial(job, number)) for number in range(90)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [isinstance(result, KeyError) for result in results] == [number % 3 == 0 for number in range(90)]
        for store in stores:
            assert await store.run(lambda connection: connection.scalar(sa.select(COUNTER.c.last))) == 60
    finally:
        for store in stores:
            await store.aclose()


async def test_a_batch_whose_connection_is_cut_in_the_middle_is_no_ones_success(dsn: str) -> None:
    def cut(connection: Connection) -> None:
        connection.exec_driver_sql("select pg_terminate_backend(pg_backend_pid())")

    def count(connection: Connection) -> None:
        connection.execute(COUNTER.update().values(last=COUNTER.c.last + 1))

    store = SharedStore(dsn)
    try:
        await store.open()
        held = threading.Event()
        jobs = (lambda _: held.wait(10), count, cut, count)
        waiting = [asyncio.ensure_future(store.run(job)) for job in jobs]
        await asyncio.sleep(0.1)
        held.set()
        _, before, at, after = await asyncio.gather(*waiting, return_exceptions=True)
        for result in (before, at, after):
            assert isinstance(result, RequestRefused), result
            assert (result.status, result.retryable) == (503, True)
        assert await store.run(lambda connection: connection.scalar(sa.select(COUNTER.c.last))) == 0
    finally:
        await store.aclose()


async def test_one_that_stalls_with_the_lock_loses_it_and_is_told_to_come_again(dsn: str) -> None:
    over = threading.Event()

    def stall(connection: Connection) -> None:
        assert connection.exec_driver_sql("show idle_in_transaction_session_timeout").scalar() == "10s"
        connection.exec_driver_sql("set local idle_in_transaction_session_timeout = '200ms'")
        over.wait(30)
        connection.scalar(sa.select(COUNTER.c.last))

    stores = SharedStore(dsn), SharedStore(dsn)
    try:
        await asyncio.gather(*(store.open() for store in stores))
        stalled = asyncio.ensure_future(stores[0].run(stall))
        await asyncio.sleep(0.1)
        await asyncio.wait_for(stores[1].run(lambda connection: None), 60)
        over.set()
        with pytest.raises(RequestRefused) as refused:
            await stalled
        assert (refused.value.status, refused.value.retryable) == (503, True)
        assert await stores[0].run(lambda connection: connection.scalar(sa.select(COUNTER.c.last))) == 0
    finally:
        over.set()
        for store in stores:
            await store.aclose()


# --- one that dies -------------------------------------------------------------------------------------------------

_CREATING = "select query from pg_stat_activity where state = 'active' and query like 'create database%'"
Create = Callable[[AsyncInfrai], Awaitable[Any]]


async def stop_in_the_middle(served: Served, create: Create, dsn: str, number: signal.Signals) -> asyncio.Task[Any]:
    """Send a signal while Postgres makes the database of a call, and return that call."""
    watch = await asyncio.wait_for(asyncpg.connect(dsn), 25)
    try:
        call = asyncio.ensure_future(create(served.client))
        while not await watch.fetch(_CREATING):
            assert not call.done(), "it was over before it could be stopped"
        served.signal(number)
    finally:
        await watch.close()
    assert await in_state(dsn, "select capability from operations where state = 'running'") != []
    return call


async def until(seen: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while not (found := await seen()):
            await asyncio.sleep(0.25)
    return found


async def made_by(dsn: str) -> set[str]:
    """The databases of this store's tenants that are there."""
    marked = "select name from databases where not doomed"
    there = set(await query(dsn, "select datname from pg_database"))
    known = set(await in_state(dsn, marked))
    assert known <= there
    return known


async def test_a_create_of_one_that_is_killed_is_finished_by_the_other(tmp_path: Path, dsn: str) -> None:
    async with two(tmp_path, dsn) as (one, other):

        async def create(client: AsyncInfrai) -> Any:
            return await client.db.project.create(name="shop", idempotency_key="k")

        call = await stop_in_the_middle(one, create, dsn, signal.SIGKILL)
        with pytest.raises(TransportError):
            await call
        (project,) = await until(lambda: other.client.db.project.list().collect())
        again = await create(other.client)
        assert (again.id, again.connection_uri, again.metadata.cost_usd) == (project.id, project.connection_uri, 0)
        assert await query(project.connection_uri, "select 1") == [1]
        assert len(await made_by(dsn)) == 1
        operations = "select nano from operations where capability = 'db.project.create'"
        assert await in_state(dsn, operations) == [1_000_000]
        await _wallet_agrees(dsn, other)
        async with serving(one.data_dir, dsn) as back:
            assert (back.api_key, (await create(back.client)).id) == (one.api_key, project.id)
            await back.client.db.project.create(name="second")
            assert len(await other.client.db.project.list().collect()) == 2


async def _wallet_agrees(dsn: str, served: Served) -> None:
    """What is gone from the wallet is one create and reads of 0.00001 each: nothing was paid twice or given back."""
    balance = (await served.client.account.balance()).balance_usd
    reads = (2 - Decimal("0.001") - balance) / Decimal("0.00001")
    assert reads == int(reads)
    assert 0 < reads < 100, "a second create costs as much as a hundred reads"


async def test_a_branch_of_one_that_is_killed_is_answered_by_the_other_that_waits(tmp_path: Path, dsn: str) -> None:
    async with two(tmp_path, dsn, _QUICK) as (one, other):
        project = await one.client.db.project.create(name="shop")
        await query(project.connection_uri, "create table t as select generate_series(1, 200000) as x")
        await query(project.connection_uri, "create table u ()")

        async def create(client: AsyncInfrai) -> Any:
            return await client.db.branch.create(project_id=project.id, branch_name="b", idempotency_key="k")

        call = await stop_in_the_middle(one, create, dsn, signal.SIGKILL)
        branch = await asyncio.wait_for(create(other.client), 60)
        assert branch.metadata.cost_usd == 0, "the first one took the price"
        with pytest.raises(TransportError):
            await call
        assert await query(branch.connection_uri, "select count(*) from t") == [200_000]
        await query(branch.connection_uri, "drop table u")
        await query(project.connection_uri, "drop table u")
        assert [item.id for item in await other.client.db.branch.list().collect()] == [branch.id]
        assert len(await made_by(dsn)) == 2


async def test_one_that_only_stalled_finds_its_work_done(tmp_path: Path, dsn: str) -> None:
    async with two(tmp_path, dsn, _QUICK) as (one, other):

        async def create(client: AsyncInfrai) -> Any:
            return await client.db.project.create(name="shop", idempotency_key="k")

        call = await stop_in_the_middle(one, create, dsn, signal.SIGSTOP)
        finished = await asyncio.wait_for(create(other.client), 60)
        one.signal(signal.SIGCONT)
        assert (await asyncio.wait_for(call, 60)).id == finished.id
        assert [item.id for item in await one.client.db.project.list().collect()] == [finished.id]
        assert await query(finished.connection_uri, "select 1") == [1]
        assert len(await made_by(dsn)) == 1


async def test_what_one_leaves_unfinished_when_it_goes_is_finished_by_the_other(tmp_path: Path, dsn: str) -> None:
    """The state is put to where it stood, had a gateway lost it for a moment while it closed."""
    async with LocalGateway(tmp_path, postgres_dsn=dsn) as gateway, client_of(gateway) as client:
        project = await client.db.project.create(name="shop")
        await in_state(dsn, "insert into gateways values ('gw_other', 0)")
        await in_state(dsn, "update operations set state = 'running', owner = 'gw_other'")
        await in_state(dsn, "update projects set seq = null")
        await asyncio.sleep(2 * heartbeat._BEAT)
        assert await client.db.project.list().collect() == []
        await in_state(dsn, "delete from gateways where id = 'gw_other'")
        found = await until(lambda: client.db.project.list().collect())
        assert [item.id for item in found] == [project.id]


async def test_a_bucket_of_one_that_dies_is_made_in_the_s3_store_by_the_other(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is put to where it stood, had a gateway died before the bucket was there."""
    monkeypatch.setattr(heartbeat, "_BEAT", _QUICK)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "tests")
    async with (
        s3_store() as endpoint,
        LocalGateway(tmp_path, postgres_dsn=dsn, s3_endpoint=endpoint) as gateway,
        client_of(gateway) as client,
        aiohttp.ClientSession() as session,
    ):
        await client.storage.bucket.create(bucket="b", idempotency_key="k")
        url = (await client.storage.object.presign("b", "key", method="PUT")).url
        async with session.delete(url.rpartition("/")[0]) as gone:
            assert gone.status == 204
        await in_state(dsn, "insert into gateways values ('gw_other', 0)")
        await in_state(dsn, "update buckets set seq = null")
        await in_state(dsn, "update operations set state = 'running', owner = 'gw_other'")
        made = await client.storage.bucket.create(bucket="b", idempotency_key="k")
        assert (made.bucket, made.metadata.cost_usd) == ("b", 0)
        url = (await client.storage.object.presign("b", "key", method="PUT")).url
        async with session.put(url, data=b"bytes") as answer:
            assert answer.status == 200


async def test_a_state_that_is_away_while_a_gateway_starts_delays_it(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile, tried = Janitor.reconcile, 0

    async def allow(connections: bool) -> None:
        await query(dsn, f"alter database {state_of(dsn)} allow_connections {connections}")

    async def disturbed(janitor: Janitor, postgres: Postgres) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            await allow(False)
            await query(dsn, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", state_of(dsn))
        await reconcile(janitor, postgres)

    monkeypatch.setattr(Janitor, "reconcile", disturbed)
    async with LocalGateway(tmp_path, postgres_dsn=dsn) as gateway, client_of(gateway) as client:
        with pytest.raises(ServerError) as refused:
            await client.db.project.create(name="shop")
        assert (refused.value.status, refused.value.retryable) == (503, True)
        await allow(True)

        async def created() -> Any:
            with suppress(ServerError):
                return await client.db.project.create(name="shop")

        assert (await until(created)).name == "shop"
        assert tried > 1


async def test_one_that_closes_while_the_state_is_away_is_quiet_about_what_it_could_not_write(
    tmp_path: Path, dsn: str
) -> None:
    async with LocalGateway(tmp_path, postgres_dsn=dsn) as gateway, client_of(gateway) as client:
        made = await client.cdn.distribution.create(origin="http://127.0.0.1:1")
        cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1"
        async with aiohttp.ClientSession() as session:
            for away in (False, True):
                if away:
                    await query(dsn, f"alter database {state_of(dsn)} allow_connections false")
                    await query(dsn, cut, state_of(dsn))
                async with session.get(f"{made.edge_url}/x") as answer:  # counted, also from memory
                    assert answer.status in (502, 503)


async def test_no_page_of_another_gateway_is_read_through_an_edge(shared: tuple[Served, Served], account: Any) -> None:
    made = await account[0].cdn.distribution.create(origin=shared[1].base_url)
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/_gateway/faults"):
            async with session.get(f"{made.edge_url}{path}") as answer:
                assert answer.status == 403
                assert "only from the machine that runs the gateway" in await answer.text()


# --- an existing server --------------------------------------------------------------------------------------------


@asynccontextmanager
async def client_of(gateway: LocalGateway) -> AsyncIterator[AsyncInfrai]:
    options: Any = {"retry": RetryPolicy.none(), "timeout": 60, "allow_http": True}
    async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url, **options) as client:
        yield client


async def test_a_role_without_superuser_is_enough_for_all_of_db(tmp_path: Path, dsn: str) -> None:
    assert await query(dsn, "select rolsuper from pg_roles where rolname = current_user") == [False]
    async with LocalGateway(tmp_path, postgres_dsn=dsn) as gateway, client_of(gateway) as client:
        project, stranger = [await client.db.project.create(name=name) for name in ("shop", "stranger")]
        await query(project.connection_uri, "create table t as select 1 as x")
        branch = await client.db.branch.create(project_id=project.id, branch_name="b")
        await query(branch.connection_uri, "insert into t values (2)")
        snapshot = await client.db.snapshot.create(project_id=project.id)
        await query(project.connection_uri, "insert into t values (3)")
        restored = await client.db.snapshot.restore(snapshot.id)
        found = [await query(one.connection_uri, "select x from t order by x") for one in (project, branch, restored)]
        assert found == [[1, 3], [1, 2], [1]]
        for database in (urlsplit(project.connection_uri).path[1:], state_of(dsn)):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await query(stranger.connection_uri, "select 1", database=database)
        ours = await made_by(dsn)
        assert len(ours) == 5
        for one in (project, stranger, restored):
            await client.db.project.delete(one.id)
        with pytest.raises(asyncpg.PostgresError):
            await query(branch.connection_uri, "select 1")

        async def gone() -> bool:
            roles, databases = [
                await query(dsn, f"select {name} from {table} where {name} = any($1::text[])", ours)
                for name, table in (("rolname", "pg_roles"), ("datname", "pg_database"))
            ]
            return not roles and not databases

        await until(gone)


async def test_the_oldest_postgres_at_hand_holds_the_state(tmp_path: Path) -> None:
    packaged = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if int(path.parent.name) >= 15]
    oldest = await Postgres.start(tmp_path / "server", binaries=min(packaged, default=None))
    try:
        async with (
            ordinary_role(oldest) as dsn,
            LocalGateway(tmp_path / "d", postgres_dsn=dsn) as gateway,
            client_of(gateway) as client,
        ):
            project = await client.db.project.create(name="shop")
            assert project.postgres_version == oldest.version
            assert await in_state(dsn, "select name from projects") == ["shop"]
    finally:
        await oldest.aclose(remove=True)


async def test_connections_of_the_state_that_are_cut_are_had_again(tmp_path: Path, dsn: str) -> None:
    cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1"
    async with LocalGateway(tmp_path, postgres_dsn=dsn) as gateway, client_of(gateway) as client:
        for number in range(3):
            await client.flags.set(key=f"f{number}", type="bool")
            assert True in await query(dsn, cut, state_of(dsn))
        assert len(await client.flags.list().collect()) == 3


async def test_a_temporary_gateway_shares_nothing_and_leaves_nothing(dsn: str) -> None:
    before = set(await query(dsn, "select datname from pg_database"))
    async with LocalGateway(postgres_dsn=dsn) as one, LocalGateway(postgres_dsn=dsn) as other:
        assert one.api_key != other.api_key
        async with client_of(one) as client:
            project = await client.db.project.create(name="shop")
            assert await query(project.connection_uri, "select 1") == [1]
    assert set(await query(dsn, "select datname from pg_database")) <= before


async def test_a_data_directory_never_hides_one_state_behind_another(tmp_path: Path, server: str, dsn: str) -> None:
    nowhere = {"postgres_bin": tmp_path / "no-postgres-here"}
    async with LocalGateway(tmp_path / "own", **nowhere) as gateway:
        key = gateway.api_key
    sharing = LocalGateway(tmp_path / "shared", postgres_dsn=dsn)
    keys = set()
    for _ in range(2):
        async with sharing:
            keys.add(sharing.api_key)
    assert len(keys - {key}) == 1
    elsewhere = await new_store(server)
    for place, given, told in (
        ("own", {"postgres_dsn": dsn}, "has a state of its own"),
        ("shared", nowhere, "is in Postgres"),
        ("shared", {"postgres_dsn": elsewhere}, "belongs to the state in another Postgres"),
    ):
        with pytest.raises(OSError, match=told):
            await LocalGateway(tmp_path / place, **given).start()
    async with LocalGateway(tmp_path / "own", **nowhere) as gateway:
        assert gateway.api_key == key


async def test_a_server_that_cannot_hold_the_state_is_told_without_its_password(tmp_path: Path, server: str) -> None:
    weak = "create role weak login password 'hidden'"
    await query(server, weak)
    address = urlsplit(server)
    for netloc, told in (
        (f"weak:hidden@{address.hostname}:{address.port}", "permission denied to create database"),
        ("me:hidden@127.0.0.1:1", "no connection to Postgres at 127.0.0.1:1 "),
    ):
        with pytest.raises(OSError, match=told) as refusal:
            await LocalGateway(tmp_path / "d", postgres_dsn=address._replace(netloc=netloc).geturl()).start()
        assert "hidden" not in str(refusal.value)
        assert refusal.value.errno != errno.EEXIST


def test_a_missing_driver_is_named_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"infrai-async\[local,postgres\]"):
        LocalGateway(tmp_path, postgres_dsn="postgresql://me@127.0.0.1:1/x")
    LocalGateway(postgres_dsn="postgresql://me@127.0.0.1:1/x")
