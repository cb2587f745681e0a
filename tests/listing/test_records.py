"""Records for data frames: masked unless asked for, with times as times, of cursors, fan-outs and inventories."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from support.oracle import Oracle, Reply, Seen, answer

from infrai_async import Ack, AsyncInfrai, Flag, FlagValues, Infrai, InvalidArgument, PresignedUrl, fan_out
from infrai_async.models.shown import public_of, record_of

pytestmark = pytest.mark.anyio
URI = "postgresql://u:secret@127.0.0.1:5432/d"
MASKED = "postgresql://u:***@127.0.0.1:5432/d"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
PROJECT = {"id": "p", "name": "n", "connection_uri": URI, "created_at": "2026-01-02T12:00:00Z", "api_key": "secret"}
BRANCH = {"id": "b", "branch_name": "x", "project_id": "p", "connection_uri": URI}
SNAPSHOT = {"id": "s", "project_id": "p", "created_at": "2026-01-02T12:00:00Z"}


def reply(seen: Seen) -> Reply:
    items = {"branch": [BRANCH] * 3, "snapshot": [SNAPSHOT], "project": [PROJECT, PROJECT | {"id": "q"}]}
    return answer({"items": items[seen.path.split("/")[3]], "next_cursor": None})


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle(reply) as oracle:
        yield oracle


MASKED_PROJECT = {"id": "p", "name": "n", "connection_uri": MASKED, "created_at": NOON, "api_key": "***"}
MASKED_BRANCH = BRANCH | {"connection_uri": MASKED}


async def test_the_records_of_all_kinds_of_listings(oracle: Oracle) -> None:
    async with AsyncInfrai("k", base_url=oracle.url) as client:
        assert (await client.db.project.list().to_records())[0] == MASKED_PROJECT
        clear = await client.db.project.list().to_records(secrets=True)
        assert (clear[0]["connection_uri"], clear[0]["api_key"]) == (URI, "secret")
        pairs = fan_out(client.db.project.list(), lambda project: client.db.branch.list(project_id=project.id))
        records = await pairs.to_records()
        assert len(records) == 6
        assert {"parent": MASKED_PROJECT, "child": MASKED_BRANCH} in records
        entries = await client.db.inventory().to_records()
        assert entries[0]["branches"] == [MASKED_BRANCH] * 3
        assert entries[0]["snapshots"] == [SNAPSHOT | {"created_at": NOON}]
        assert "secret" not in repr(records) + repr(entries)


async def test_a_fan_out_and_an_inventory_are_collected_in_parts(oracle: Oracle) -> None:
    async with AsyncInfrai("k", base_url=oracle.url) as client:
        pairs = fan_out(client.db.project.list(), lambda project: client.db.branch.list(project_id=project.id))
        assert await pairs.collect(max_items=0) == []
        some = await pairs.collect(max_items=4)
        rest = await pairs.collect()
        assert (len(some), len(rest)) == (4, 2)
        assert await pairs.collect() == []
        assert "secret" not in some._repr_html_()  # type: ignore[attr-defined]
        entries = client.db.inventory()
        assert len(await entries.collect(max_items=1)) == 1
        assert len(await entries.collect()) == 1
        for listing in (pairs, entries):
            with pytest.raises(InvalidArgument, match="max_items"):
                await listing.collect(max_items=-1)


def test_the_blocking_client_has_the_same(oracle: Oracle) -> None:
    with Infrai("k", base_url=oracle.url) as client:
        pairs = client.fan_out(client.db.project.list(), lambda project: client.db.branch.list(project_id=project.id))
        some = pairs.collect(max_items=4)
        assert (len(some), len(pairs.collect())) == (4, 2)
        pairs = client.fan_out(client.db.project.list(), lambda project: client.db.branch.list(project_id=project.id))
        assert {"parent": MASKED_PROJECT, "child": MASKED_BRANCH} in pairs.to_records()
        entries = client.db.inventory()
        assert len(entries.collect(max_items=1)) == 1
        (entry,) = entries.to_records(secrets=True)
        assert entry["branches"] == [BRANCH] * 3
        with pytest.raises(InvalidArgument, match="max_items"):
            client.db.inventory().collect(max_items=-1)


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("api_key", True), ("key", True), ("client_secret", True), ("accessToken", True), ("Password", True),
        ("passwd", True), ("credentials", True), ("keys", True), ("monkey", False), ("keyboard", False),
    ],
)  # fmt: skip
def test_an_unknown_field_is_masked_by_its_name(name: str, masked: bool) -> None:
    assert record_of({name: "text"}, secrets=False) == {name: "***" if masked else "text"}
    assert record_of({"in": [{name: "text"}]}, secrets=False) == {"in": [{name: "***" if masked else "text"}]}
    assert record_of({name: "text"}, secrets=True) == {name: "text"}


@pytest.mark.parametrize(
    ("extra", "masked"),
    [
        ({"uris": [URI, (URI,)]}, {"uris": [MASKED, [MASKED]]}),
        ({"a": {"b": [[{"c": URI}]]}}, {"a": {"b": [[{"c": MASKED}]]}}),
        ({"credentials": {"user": "u", "pw": "secret"}}, {"credentials": "***"}),
        ({"tokens": ["secret"]}, {"tokens": "***"}),
        ({"api_keys": [{"value": "secret"}]}, {"api_keys": "***"}),
        ({"max_tokens": 5, "secret": None, "keys": True}, {"max_tokens": 5, "secret": None, "keys": True}),
    ],
)
def test_an_unknown_secret_is_masked_wherever_it_is(extra: dict[str, object], masked: dict[str, object]) -> None:
    ack = Ack(ok=True, extra=extra)  # type: ignore[arg-type]
    assert record_of(ack, secrets=False) == {"ok": True, **masked}
    assert "secret" not in str(public_of(ack).values())
    assert "secret" not in str(record_of([extra, (extra,)], secrets=False)).replace("'secret': None", "")
    shown = record_of(ack, secrets=True)
    assert {**shown, "uris": None} == {"ok": True, **extra, "uris": None}


def test_the_names_in_documented_json_are_no_secrets() -> None:
    rollout = {"percentage": 5, "variants": [{"key": "a", "value": {"token": "t"}}]}
    flag = Flag(key="k", rollout=rollout, rules=({"attribute": "key", "values": ["x"]},), tags={"owner_key": "x"})
    assert record_of(flag, secrets=False) == flag.to_dict()
    values = FlagValues(values_by_key={"secret_sale": "on", "b": {"key": "x"}})
    assert record_of(values, secrets=False) == values.to_dict()


def test_what_the_repr_leaves_out_is_masked() -> None:
    url = PresignedUrl(
        url="https://s3/a?sig=secret", method="PUT", expires_at=NOON, headers={"Authorization": "secret"}
    )
    shown = {"url": "https://s3/a?***", "method": "PUT", "expires_at": NOON, "headers": "***"}
    assert record_of(url, secrets=False) == shown
    assert record_of(url, secrets=True)["headers"] == {"Authorization": "secret"}
