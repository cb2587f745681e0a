"""What a type checker must know of every blocking method; never run, checked by mypy and pyright."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, assert_type

from infrai_async import (
    Ack,
    Activation,
    AttemptSent,
    Balance,
    Branch,
    Bucket,
    Budget,
    CacheStats,
    CallFinished,
    CapabilityInfo,
    Deadline,
    DiscoveryIndex,
    Distribution,
    Event,
    Flag,
    FlagState,
    FlagValue,
    FlagValues,
    Infrai,
    Model,
    Operation,
    Page,
    PresignedUrl,
    Project,
    ProjectInventory,
    PurgeResult,
    Snapshot,
    Stats,
    TopupRecord,
)
from infrai_async.sync import Cursor, FanOut, Inventory


def db(client: Infrai) -> None:
    assert_type(client.db.project.create(name="a"), Project)
    assert_type(client.db.project.get("a"), Project)
    assert_type(client.db.project.delete("a"), Ack)
    assert_type(client.db.project.list(), Cursor[Project])
    assert_type(client.db.branch.create(project_id="a", branch_name="b"), Branch)
    assert_type(client.db.branch.get("a"), Branch)
    assert_type(client.db.branch.delete("a"), Ack)
    assert_type(client.db.branch.list(project_id="a"), Cursor[Branch])
    assert_type(client.db.snapshot.create(project_id="a"), Snapshot)
    assert_type(client.db.snapshot.get("a"), Snapshot)
    assert_type(client.db.snapshot.restore("a"), Project)
    assert_type(client.db.snapshot.list(), Cursor[Snapshot])


def storage_and_cdn(client: Infrai) -> None:
    assert_type(client.storage.bucket.create(bucket="a"), Bucket)
    assert_type(client.storage.bucket.list(), Cursor[Bucket])
    assert_type(client.storage.bucket.get("b"), Bucket)
    assert_type(client.storage.bucket.delete("b"), Ack)
    assert_type(client.storage.ensure_bucket("b", acl="private"), Bucket)
    assert_type(client.storage.object.presign(bucket="a", key="b"), PresignedUrl)
    assert_type(client.storage.object.delete(bucket="a", key="b"), Ack)
    assert_type(client.cdn.distribution.create(origin="a"), Distribution)
    assert_type(client.cdn.distribution.get("a"), Distribution)
    assert_type(client.cdn.distribution.update("a", enabled=False), Distribution)
    assert_type(client.cdn.distribution.delete("a"), Ack)
    assert_type(client.cdn.distribution.list(), Cursor[Distribution])
    assert_type(client.cdn.cache.purge(distribution_id="a"), PurgeResult)
    assert_type(client.cdn.cache.stats(), CacheStats)


def flags(client: Infrai) -> None:
    assert_type(client.flags.is_enabled("a", default=True), FlagState)
    assert_type(client.flags.get_value("a", default=None), FlagValue)
    assert_type(client.flags.get_all(context={"plan": "pro"}), FlagValues)
    assert_type(client.flags.get("a"), Flag)
    assert_type(client.flags.set("a", default_value={"x": [1]}, tags={"team": "web"}), Flag)
    assert_type(client.flags.toggle("a", enabled=True, version=1), Flag)
    assert_type(client.flags.rollout("a", percentage=5, salt="s", sticky_unit="user_id", version=1), Flag)
    assert_type(client.flags.delete("a"), Ack)
    assert_type(client.flags.list(), Cursor[Flag])


def account_and_discovery(client: Infrai) -> None:
    assert_type(client.account.balance(), Balance)
    assert_type(client.account.topup(amount_usd=Decimal(5)), TopupRecord)
    assert_type(client.account.activate(), Activation)
    assert_type(client.discovery.list(), DiscoveryIndex)
    assert_type(client.discovery.get("a"), CapabilityInfo)


def cursors(client: Infrai) -> None:
    cursor = client.db.project.list()
    for project in cursor:
        assert_type(project, Project)
        assert_type(project.created_at, datetime | None)
        assert_type(project.metadata.cost_usd, Decimal | None)
    for page in cursor.pages():
        assert_type(page, Page[Project])
        assert_type(page.items, tuple[Project, ...])
    assert_type(cursor.page(), Page[Project])
    assert_type(cursor.collect(max_items=5), list[Project])
    assert_type(cursor.to_records(progress=True), list[dict[str, object]])
    assert_type(next(cursor), Project)
    assert_type(cursor.next_cursor, str | None)


def many(client: Infrai) -> None:
    pairs = client.fan_out(client.db.project.list(), lambda project: client.db.branch.list(project_id=project.id))
    assert_type(pairs, FanOut[Project, Branch])
    assert_type(
        client.fan_out(pairs, lambda pair: client.db.snapshot.list(project_id=pair[0].id)),
        FanOut[tuple[Project, Branch], Snapshot],
    )
    for project, branch in pairs:
        assert_type(project, Project)
        assert_type(branch, Branch)
    assert_type(next(pairs), tuple[Project, Branch])
    assert_type(pairs.collect(), list[tuple[Project, Branch]])
    assert_type(pairs.to_records(secrets=True), list[dict[str, object]])
    assert_type(pairs.close(), None)
    entries = client.db.inventory(checkpoint="a")
    assert_type(client.db.inventory(concurrency=1), Inventory)
    for entry in entries:
        assert_type(entry, ProjectInventory)
    assert_type(next(entries), ProjectInventory)
    assert_type(entries.collect(max_items=5), list[ProjectInventory])
    assert_type(entries.to_records(), list[dict[str, object]])
    assert_type(entries.close(), None)


def client_itself(client: Infrai) -> None:
    assert_type(client.with_options(timeout=None), Infrai)
    assert_type(client.stats, Stats)
    assert_type(client.settings, dict[str, Any])
    assert_type(client.call("db.project.get", {"id": "a"}), Model | Page[Model])
    assert_type(client.close(grace=0), None)
    with Infrai() as entered:
        assert_type(entered, Infrai)


def blocks(client: Infrai) -> None:
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


def listeners(heard: list[Event], sent: list[AttemptSent]) -> None:
    def costs(event: Event) -> Decimal | None:
        return event.cost_usd if isinstance(event, CallFinished) else None

    Infrai(on_event=costs)
    Infrai(on_event=heard.append)
    Infrai(on_event=sent.append)  # type: ignore[arg-type]  # pyright: ignore


def wrong(client: Infrai, anything: Mapping[str, object]) -> None:
    client.db.project.create()  # type: ignore[call-arg]  # pyright: ignore
    client.db.project.create(name=5)  # type: ignore[arg-type]  # pyright: ignore
    client.db.project.create(name="a", mode="rented")  # type: ignore[arg-type]  # pyright: ignore
    client.db.project.list(page=2)  # type: ignore[call-arg]  # pyright: ignore


async def fits_the_other_client(client: Infrai) -> None:
    cursor = client.db.project.list()
    async for _ in cursor:  # type: ignore[attr-defined]  # pyright: ignore
        pass
    len(cursor)  # type: ignore[arg-type]  # pyright: ignore
    cursor[0]  # type: ignore[index]  # pyright: ignore
    await cursor  # type: ignore[misc]  # pyright: ignore
    async for _ in client.db.inventory():  # type: ignore[attr-defined]  # pyright: ignore
        pass
    async with client:  # type: ignore[attr-defined]  # pyright: ignore
        pass
