"""The table, held against the machine-readable twin of the contract."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest

from infrai_async import capabilities
from infrai_async.capabilities import CAPABILITIES, Capability, Param
from infrai_async.models import (
    Ack,
    Activation,
    Balance,
    Branch,
    Bucket,
    CacheStats,
    CapabilityInfo,
    DiscoveryIndex,
    Distribution,
    Flag,
    FlagState,
    FlagValue,
    FlagValues,
    Model,
    PresignedUrl,
    Project,
    PurgeResult,
    Snapshot,
    TopupRecord,
)

CONTRACT: dict[str, dict[str, Any]] = {
    row["id"]: row
    for row in json.loads((Path(__file__).parent.parent / "contract" / "capabilities.json").read_text(encoding="utf-8"))
}
RETURNS: dict[str, type[Model]] = {
    "db.project.create": Project,
    "db.project.get": Project,
    "db.project.list": Project,
    "db.project.delete": Ack,
    "db.branch.create": Branch,
    "db.branch.get": Branch,
    "db.branch.list": Branch,
    "db.branch.delete": Ack,
    "db.snapshot.create": Snapshot,
    "db.snapshot.get": Snapshot,
    "db.snapshot.list": Snapshot,
    "db.snapshot.restore": Project,
    "storage.bucket.create": Bucket,
    "storage.bucket.list": Bucket,
    "storage.bucket.get": Bucket,
    "storage.bucket.delete": Ack,
    "storage.object.presign": PresignedUrl,
    "storage.object.delete": Ack,
    "cdn.distribution.create": Distribution,
    "cdn.distribution.get": Distribution,
    "cdn.distribution.list": Distribution,
    "cdn.distribution.update": Distribution,
    "cdn.distribution.delete": Ack,
    "cdn.cache.purge": PurgeResult,
    "cdn.cache.stats": CacheStats,
    "flags.is_enabled": FlagState,
    "flags.set": Flag,
    "flags.list": Flag,
    "flags.get": Flag,
    "flags.get_value": FlagValue,
    "flags.get_all": FlagValues,
    "flags.toggle": Flag,
    "flags.rollout": Flag,
    "flags.delete": Ack,
    "account.activate": Activation,
    "account.balance": Balance,
    "account.topup": TopupRecord,
    "discovery.list": DiscoveryIndex,
    "discovery.get": CapabilityInfo,
}
PAGED = {
    "db.project.list",
    "db.branch.list",
    "db.snapshot.list",
    "storage.bucket.list",
    "cdn.distribution.list",
    "flags.list",
}
# What the table's kinds are called in the contract.
KINDS = {
    "string": {"string"},
    "number": {"number"},
    "integer": {"number"},
    "boolean": {"boolean"},
    "json": {"unknown"},
    "object": {"Record<string,unknown>", "Record<string,string>", "RolloutConfig", "object"},
    "strings": {"string[]"},
    "objects": {"FlagRule[]", "Variant[]", "object[]"},
}
# Parameters of the contract that are another public argument here, each with the decision that says so.
ELSEWHERE = {
    ("db.snapshot.restore", "snapshot_id"): "D5: the id, repeated",
    ("storage.bucket.create", "name"): "D20: bucket",
    ("storage.object.presign", "op"): "D20: method",
    ("account.topup", "amount"): "D12: amount_usd, repeated",
}
# Parameters that only our table has, each with its reason.
BEYOND = {("flags.set", "archived"): "every flag answers it, and no capability sets it"}
ROWS = sorted(CAPABILITIES)


def documented(row: str) -> dict[str, dict[str, Any]]:
    """The contract's parameters that travel in a request of ours, by public name."""
    return {
        "from_" if param["name"] == "from" else param["name"]: param
        for param in CONTRACT[row]["params"]
        if param["in"] != "client" and param["name"] != "idempotency_key" and (row, param["name"]) not in ELSEWHERE
    }


def choices(written: str) -> tuple[str, ...]:
    return tuple(choice.strip("'") for choice in written.split("|")) if written.startswith("'") else ()


def test_every_capability_of_the_seeds_is_in_the_table() -> None:
    seeds = {row["id"] for row in CONTRACT.values() if row["tier"] == "seed"}
    assert seeds <= set(CAPABILITIES)


def test_the_table_names_no_capability_that_the_contract_does_not_know() -> None:
    assert set(CAPABILITIES) <= set(CONTRACT)


def test_the_table_is_every_row_of_the_package() -> None:
    rows = {name: value for name, value in vars(capabilities).items() if isinstance(value, Capability)}
    assert set(CAPABILITIES.values()) == set(rows.values())
    assert rows.keys() <= set(capabilities.__all__)
    assert [row.id for row in CAPABILITIES.values()] == list(CAPABILITIES)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_documented_method(row: str) -> None:
    assert CAPABILITIES[row].method == CONTRACT[row]["method"]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_documented_paths_the_seeds_first(row: str) -> None:
    current = CONTRACT[row].get("current_path")
    assert [route.path for route in CAPABILITIES[row].routes] == [
        CONTRACT[row]["path"],
        *([current] if current else []),
    ]


@pytest.mark.parametrize("row", ROWS)
def test_the_running_services_route_has_the_same_method(row: str) -> None:
    assert CONTRACT[row].get("current_method", CAPABILITIES[row].method) == CAPABILITIES[row].method


@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_something_where_the_documentation_says_so(row: str) -> None:
    assert CAPABILITIES[row].mutates == CONTRACT[row]["mutating"]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_takes_a_key_in_its_body_where_the_documentation_lists_one(row: str) -> None:
    listed = any(param["name"] == "idempotency_key" for param in CONTRACT[row]["params"])
    assert CAPABILITIES[row].deduplicates == CONTRACT[row]["idempotent_key"] == listed


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_sent_again_after_a_break_where_that_is_safe(row: str) -> None:
    safe = CONTRACT[row]["method"] in ("GET", "DELETE") or CONTRACT[row]["idempotent_key"]
    assert CAPABILITIES[row].resendable == safe


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_exactly_the_documented_parameters(row: str) -> None:
    beyond = {name for id, name in BEYOND if id == row}
    assert set(CAPABILITIES[row].params) == set(documented(row)) | beyond


PARAMS = [(row, name) for row in ROWS for name in sorted(documented(row))]


@pytest.mark.parametrize(("row", "name"), PARAMS)
def test_a_parameter_travels_where_the_documentation_puts_it(row: str, name: str) -> None:
    assert CAPABILITIES[row].params[name].where == documented(row)[name]["in"]


@pytest.mark.parametrize(("row", "name"), PARAMS)
def test_a_parameter_is_required_where_the_documentation_says_so(row: str, name: str) -> None:
    assert CAPABILITIES[row].params[name].required == documented(row)[name]["required"]


@pytest.mark.parametrize(("row", "name"), PARAMS)
def test_a_parameter_has_the_documented_choices(row: str, name: str) -> None:
    assert CAPABILITIES[row].params[name].choices == choices(documented(row)[name]["type"])


@pytest.mark.parametrize(("row", "name"), PARAMS)
def test_a_parameter_has_the_documented_type(row: str, name: str) -> None:
    written = documented(row)[name]["type"]
    kind = CAPABILITIES[row].params[name].kind
    assert kind == "string" if choices(written) else written in KINDS[kind]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_and_what_it_is_made_of_are_read_by_every_call_and_so_have_slots(row: str) -> None:
    made_of = [CAPABILITIES[row], *CAPABILITIES[row].routes, *CAPABILITIES[row].params.values()]
    assert not any(hasattr(part, "__dict__") for part in made_of)


def test_a_percentage_alone_has_bounds() -> None:
    bounded = {(row, name): CAPABILITIES[row].params[name].bounds for row, name in PARAMS}
    assert {at: bounds for at, bounds in bounded.items() if bounds} == {("flags.rollout", "percentage"): (0, 100)}


@pytest.mark.parametrize("row", ROWS)
def test_a_path_and_its_parameters_agree_in_every_generation(row: str) -> None:
    for route in CAPABILITIES[row].routes:
        placeholders = [name for _, name, _, _ in string.Formatter().parse(route.path) if name]
        assert placeholders == [param.name for param in route.params if param.where == "path"]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_with_a_body_is_one_that_may_have_one(row: str) -> None:
    body = [param.name for param in CAPABILITIES[row].params.values() if param.where == "body"]
    assert not body or CAPABILITIES[row].method in ("POST", "PUT", "PATCH")


@pytest.mark.parametrize("row", ROWS)
def test_a_row_answers_the_documented_model(row: str) -> None:
    assert CAPABILITIES[row].returns is RETURNS[row]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_paged_where_it_answers_items(row: str) -> None:
    assert CAPABILITIES[row].paged == (row in PAGED)
    assert CAPABILITIES[row].paged == ("items" in CONTRACT[row]["returns"])


@pytest.mark.parametrize("row", ROWS)
def test_a_row_goes_without_the_key_where_d18_says_so(row: str) -> None:
    assert CAPABILITIES[row].public == (row.startswith("discovery.") or row == "account.activate")


@pytest.mark.parametrize("row", ROWS)
def test_discovery_alone_answers_without_an_envelope(row: str) -> None:
    assert CAPABILITIES[row].bare == row.startswith("discovery.")


def test_values_are_repeated_and_renamed_where_the_decisions_say_so_and_nowhere_else() -> None:
    special = {
        (row.id, generation, param.name): (param.wire, param.also, param.lower)
        for row in CAPABILITIES.values()
        for generation, route in enumerate(row.routes)
        for param in route.params
        if param.wire != param.name or param.also or param.lower
    }
    assert special == {
        ("db.snapshot.restore", 0, "id"): ("id", ("snapshot_id",), False),
        ("storage.bucket.create", 1, "bucket"): ("name", (), False),
        ("storage.object.presign", 1, "method"): ("op", (), True),
        ("cdn.cache.stats", 0, "from_"): ("from", (), False),
        ("flags.toggle", 0, "key"): ("key", ("key",), False),
        ("flags.rollout", 0, "key"): ("key", ("key",), False),
        ("account.topup", 0, "amount_usd"): ("amount_usd", ("amount",), False),
    }


def test_any_json_fits_where_any_is_allowed() -> None:
    param = Param("x", where="body", kind="json")
    assert [param.mismatch(value) for value in (None, 1, "x", [], {})] == [None] * 5
