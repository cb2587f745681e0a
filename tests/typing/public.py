"""What a type checker must know of every public method; never run, checked by mypy and pyright."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, assert_type

from infrai_async import (
    Ack,
    Activation,
    AsyncInfrai,
    AttemptSent,
    Balance,
    Branch,
    Bucket,
    Budget,
    CacheStats,
    CallFinished,
    CallStarted,
    CapabilityInfo,
    Cursor,
    Deadline,
    DiscoveryIndex,
    Distribution,
    Event,
    FanOut,
    Flag,
    FlagState,
    FlagValue,
    FlagValues,
    InfraiError,
    Inventory,
    Model,
    Operation,
    Page,
    PresignedUrl,
    Project,
    ProjectInventory,
    PurgeResult,
    Retrying,
    Snapshot,
    Stats,
    Throttled,
    TopupRecord,
    fan_out,
)
from infrai_async.ext.otel import OpenTelemetry


async def db(client: AsyncInfrai) -> None:
    assert_type(await client.db.project.create(name="a"), Project)
    assert_type(await client.db.project.get("a"), Project)
    assert_type(await client.db.project.delete("a"), Ack)
    assert_type(client.db.project.list(), Cursor[Project])
    assert_type(await client.db.branch.create(project_id="a", branch_name="b"), Branch)
    assert_type(await client.db.branch.get("a"), Branch)
    assert_type(await client.db.branch.delete("a"), Ack)
    assert_type(client.db.branch.list(project_id="a"), Cursor[Branch])
    assert_type(await client.db.snapshot.create(project_id="a"), Snapshot)
    assert_type(await client.db.snapshot.get("a"), Snapshot)
    assert_type(await client.db.snapshot.restore("a"), Project)
    assert_type(client.db.snapshot.list(), Cursor[Snapshot])


async def storage_and_cdn(client: AsyncInfrai) -> None:
    assert_type(await client.storage.bucket.create(bucket="a"), Bucket)
    assert_type(client.storage.bucket.list(), Cursor[Bucket])
    assert_type(await client.storage.bucket.get("b"), Bucket)
    assert_type(await client.storage.bucket.delete("b"), Ack)
    assert_type(await client.storage.ensure_bucket("b", acl="private"), Bucket)
    assert_type(await client.storage.object.presign(bucket="a", key="b"), PresignedUrl)
    assert_type(await client.storage.object.delete(bucket="a", key="b"), Ack)
    assert_type(await client.cdn.distribution.create(origin="a"), Distribution)
    assert_type(await client.cdn.distribution.get("a"), Distribution)
    assert_type(await client.cdn.distribution.update("a", enabled=False), Distribution)
    assert_type(await client.cdn.distribution.delete("a"), Ack)
    assert_type(client.cdn.distribution.list(), Cursor[Distribution])
    assert_type(await client.cdn.cache.purge(distribution_id="a"), PurgeResult)
    assert_type(await client.cdn.cache.stats(), CacheStats)


async def flags(client: AsyncInfrai) -> None:
    assert_type(await client.flags.is_enabled("a", default=True), FlagState)
    assert_type(await client.flags.get_value("a", default=None), FlagValue)
    assert_type(await client.flags.get_all(context={"plan": "pro"}), FlagValues)
    assert_type(await client.flags.get("a"), Flag)
    assert_type(await client.flags.set("a", default_value={"x": [1]}, tags={"team": "web"}), Flag)
    assert_type(await client.flags.toggle("a", enabled=True, version=1), Flag)
    assert_type(await client.flags.rollout("a", percentage=5, salt="s", sticky_unit="user_id", version=1), Flag)
    assert_type(await client.flags.delete("a"), Ack)
    assert_type(client.flags.list(), Cursor[Flag])


async def account_and_discovery(client: AsyncInfrai) -> None:
    assert_type(await client.account.balance(), Balance)
    assert_type(await client.account.topup(amount_usd=Decimal(5)), TopupRecord)
    assert_type(await client.account.activate(), Activation)
    assert_type(await client.discovery.list(), DiscoveryIndex)
    assert_type(await client.discovery.get("a"), CapabilityInfo)


async def cursors(client: AsyncInfrai) -> None:
    cursor = client.db.project.list()
    async for project in cursor:
        assert_type(project, Project)
        assert_type(project.created_at, datetime | None)
        assert_type(project.metadata.cost_usd, Decimal | None)
    async for page in cursor.pages():
        assert_type(page, Page[Project])
        assert_type(page.items, tuple[Project, ...])
    assert_type(await cursor.page(), Page[Project])
    assert_type(await cursor.collect(max_items=5), list[Project])
    assert_type(cursor.next_cursor, str | None)


def events(event: Event) -> None:
    assert_type(event.operation, str | None)
    match event:
        case CallStarted():
            assert_type((event.capability, event.attempt, event.call), tuple[str, int, int])
        case AttemptSent():
            assert_type((event.method, event.origin, event.path, event.waited), tuple[str, str, str, float])
        case Retrying():
            assert_type((event.reason, event.seconds), tuple[str, float])
        case Throttled():
            assert_type(event.seconds, float)
        case CallFinished():
            assert_type(event.error, InfraiError | None)
            assert_type(event.cost_usd, Decimal | None)
            assert_type((event.cancelled, event.seconds), tuple[bool, float])
            assert_type(event.request_id, str | None)


def listeners(heard: list[Event], sent: list[AttemptSent]) -> None:
    AsyncInfrai(on_event=events)
    AsyncInfrai(on_event=heard.append)
    AsyncInfrai(on_event=OpenTelemetry())
    AsyncInfrai(on_event=sent.append)  # type: ignore[arg-type]  # pyright: ignore
    AsyncInfrai(on_event="events")  # type: ignore[arg-type]  # pyright: ignore


async def many(client: AsyncInfrai) -> None:
    pairs = fan_out(client.db.project.list(prefetch=1), lambda project: client.db.branch.list(project_id=project.id))
    assert_type(pairs, FanOut[Project, Branch])
    async with pairs as entered:
        async for project, branch in entered:
            assert_type(project, Project)
            assert_type(branch, Branch)
    assert_type(await pairs.collect(), list[tuple[Project, Branch]])
    assert_type(await pairs.to_records(secrets=True), list[dict[str, object]])
    assert_type(await pairs.aclose(), None)
    assert_type(fan_out([1], lambda number: "a" * number), FanOut[int, str])
    nested = fan_out(pairs, lambda pair: client.db.snapshot.list(project_id=pair[0].id))
    assert_type(nested, FanOut[tuple[Project, Branch], Snapshot])
    entries = client.db.inventory(concurrency=8, checkpoint="a", on_error=print, progress=True)
    assert_type(entries, Inventory)
    assert_type(await entries.collect(max_items=5), list[ProjectInventory])
    assert_type(await entries.to_records(), list[dict[str, object]])
    async for entry in entries:
        assert_type(entry, ProjectInventory)
        assert_type(entry.branches, tuple[Branch, ...])


async def client_itself(client: AsyncInfrai) -> None:
    assert_type(client.with_options(timeout=None), AsyncInfrai)
    assert_type(client.stats, Stats)
    assert_type(client.settings, dict[str, Any])
    assert_type(await client.call("db.project.get", {"id": "a"}), Model | Page[Model])
    async with AsyncInfrai() as entered:
        assert_type(entered, AsyncInfrai)


def blocks(client: AsyncInfrai) -> None:
    assert_type(client.budget(usd=0.5), Budget)
    assert_type(client.deadline(30), Deadline)
    assert_type(client.operation("deploy-42"), Operation)
    client.budget(Decimal(1))
    client.budget(1)
    client.budget("0.50")
    client.deadline(timedelta(minutes=1))
    with client.budget(usd=0.5) as spent, client.deadline(1.5) as deadline, client.operation("deploy-42") as operation:
        assert_type(spent, Budget)
        assert_type(spent.usd, Decimal)
        assert_type(spent.limit, Decimal)
        assert_type(spent.by_capability, Mapping[str, Decimal])
        assert_type(spent.by_vendor, Mapping[str, Decimal])
        assert_type(deadline, Deadline)
        assert_type(operation.name, str)


def wrong(client: AsyncInfrai, anything: Mapping[str, object]) -> None:
    client.db.project.create()  # type: ignore[call-arg, unused-coroutine]  # pyright: ignore
    client.db.project.create(name=5)  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore
    client.db.project.create(name="a", mode="rented")  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore
    client.db.project.list(page=2)  # type: ignore[call-arg]  # pyright: ignore


async def fits_the_other_client(client: AsyncInfrai) -> None:
    cursor = client.db.project.list()
    for _ in cursor:  # type: ignore[attr-defined]  # pyright: ignore
        pass
    next(cursor)  # type: ignore[call-overload]  # pyright: ignore
    len(cursor)  # type: ignore[arg-type]  # pyright: ignore
    cursor[0]  # type: ignore[index]  # pyright: ignore
    await cursor  # type: ignore[misc]  # pyright: ignore
    for _ in client.db.inventory():  # type: ignore[attr-defined]  # pyright: ignore
        pass
    with client:  # type: ignore[attr-defined]  # pyright: ignore
        pass
