"""From plain JSON to models: strictly, with the place of whatever is wrong."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import pickle
import re
import textwrap
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async import models
from infrai_async._protocol import _codegen
from infrai_async._protocol._codegen import fields_of, source_of
from infrai_async._protocol.decode import _explain, _Mismatch, _ModelReader, decode, decode_page
from infrai_async._protocol.response import Envelope, Response, open_envelope
from infrai_async.capabilities import CAPABILITIES, Capability
from infrai_async.errors import DecodeError
from infrai_async.models import (
    NO_METADATA,
    Ack,
    Branch,
    FlagState,
    FlagValues,
    Metadata,
    Model,
    Project,
    PurgeResult,
    Snapshot,
)

T1, T2 = "2026-01-02T03:04:05Z", "2026-03-04T05:06:07.000800Z"
INFO = {
    "id": "db.project.get",
    "method": "GET",
    "path": "/v1/db/project/get/{id}",
    "available": True,
    "regions": ["western", "china"],
    "vendors": ["neon", {"name": "supabase"}],
    "billing": {"is_billable": True, "price_usd": 0.001},
    "idempotent": "key",
}

# Every field of every answer, in canonical form: what ``to_dict`` gives back.
FULL: dict[str, dict[str, Any]] = {
    "Ack": {"ok": True},
    "Activation": {
        "account_id": "acc_1",
        "project_id": "prj_1",
        "primary_api_key": "ifr_1",
        "trial_credit_usd": 2,
        "checkout_url": "https://infrai.cc/pay",
    },
    "Balance": {"balance_usd": 1.25, "currency": "USD"},
    "Branch": {
        "id": "br_1",
        "branch_name": "dev",
        "project_id": "prj_1",
        "connection_uri": "postgresql://u:p@h/d",
        "from_branch": "main",
        "created_at": T1,
    },
    "Bucket": {"bucket": "media", "vendor": "r2", "region": "eu", "created_at": T1, "acl": "private"},
    "CacheStats": {"requests": 10, "bytes_served": 2**40, "hit_ratio": 0.5, "hits": 5, "misses": 5},
    "CapabilityInfo": INFO,
    "DiscoveryIndex": {"capabilities": [INFO], "version": "v1", "generated_at": T1},
    "Distribution": {
        "distribution_id": "d1",
        "origin": "https://shop.example",
        "domain": "cdn.shop.example",
        "enabled": True,
        "status": "active",
        "edge_url": "http://127.0.0.1/edge/d1",
        "edge_hostname": "d1.edge",
        "cache_ttl_seconds": 3600,
        "allowed_methods": ["GET", "HEAD"],
        "https_only": False,
        "tags": [],
        "vendor": "fastly",
        "created_at": T1,
    },
    "Flag": {
        "key": "checkout",
        "description": "new checkout",
        "type": "json",
        "default_value": {"a": [1, None]},
        "rules": [{"attribute": "plan", "operator": "eq", "value": "pro", "serve": {"b": 1}}],
        "rollout": {"percentage": 12.5, "salt": "s", "sticky_unit": "user_id", "variants": []},
        "tags": {"team": "shop"},
        "enabled": True,
        "version": 3,
        "archived": False,
        "created_at": T1,
        "updated_at": T2,
    },
    "FlagState": {"enabled": True},
    "FlagValue": {
        "value": ["a"],
        "key": "checkout",
        "default_value": False,
        "enabled": True,
        "reason": "rule",
        "variant": "b",
        "version": 3,
    },
    "PresignedUrl": {
        "url": "https://s3/x?sig=1",
        "method": "PUT",
        "expires_at": T1,
        "headers": {"Content-Type": "image/png"},
    },
    "Project": {
        "id": "prj_1",
        "name": "shop",
        "connection_uri": "postgresql://u:p@h/d",
        "region": "us-east-1",
        "created_at": T1,
        "vendor": "neon",
        "plan": "pro",
        "mode": "managed",
        "postgres_version": "17",
        "status": "ready",
    },
    "PurgeResult": {"ok": True, "purge_id": "p1"},
    "Snapshot": {"id": "snap_1", "project_id": "prj_1", "created_at": T1, "label": "nightly"},
    "TopupRecord": {
        "topup_id": "t1",
        "amount_usd": 10.5,
        "state": "pending",
        "checkout_url": "https://infrai.cc/pay",
        "currency": "USD",
    },
}

# What every documented answer of a type has (D21).
PROMISED = {
    "Ack": (),
    "Activation": ("account_id", "project_id", "primary_api_key", "trial_credit_usd", "checkout_url"),
    "Balance": ("balance_usd",),
    "Branch": ("id", "branch_name", "project_id", "connection_uri"),
    "Bucket": ("bucket", "vendor", "region", "created_at"),
    "CacheStats": ("requests", "bytes_served", "hit_ratio"),
    "CapabilityInfo": ("id",),
    "DiscoveryIndex": ("capabilities",),
    "Distribution": ("distribution_id", "origin", "domain", "enabled", "status"),
    "Flag": ("key",),
    "FlagState": ("enabled",),
    "FlagValue": ("value",),
    "PresignedUrl": ("url", "method", "expires_at"),
    "Project": ("id", "name", "connection_uri"),
    "PurgeResult": (),
    "Snapshot": ("id", "project_id", "created_at"),
    "TopupRecord": ("topup_id",),
}

# Values of the wrong JSON type, by annotation; each with where in the value it is wrong, and what was expected there.
NO_TEXT = [5, 1.5, True, [], {}]
NO_TIME = [0, 1767225600, True, "", "yesterday", "2026-13-01T00:00:00Z", "12:00", [], {}]
WRONG: dict[str, list[tuple[Any, str, str]]] = {
    "str": [(value, "", "a string") for value in NO_TEXT],
    "bool": [(value, "", "a boolean") for value in (0, 1, 1.0, "true", "", [], {})],
    "int": [(value, "", "a whole number") for value in (1.5, "5", "", True, False, [], {})],
    "float": [(value, "", "a number") for value in ("0.5", "", True, [], {})],
    "Decimal": [(value, "", "a number") for value in ("0.5", "", False, [], {})],
    "datetime": [(value, "", "an ISO 8601 time") for value in NO_TIME],
    "JSON": [],
    "tuple[str, ...]": [
        *[(value, "", "a list") for value in ("x", 5, True, {})],
        *[(["a", "b", "c", value], "[3]", "a string") for value in (None, *NO_TEXT)],
    ],
    "tuple[CapabilityInfo, ...]": [
        *[(value, "", "a list") for value in ("x", 5, True, {})],
        ([INFO, INFO, INFO, {**INFO, "id": 5}], "[3].id", "a string"),
        ([INFO, INFO, INFO, {**INFO, "regions": ["a", "b", "c", 5]}], "[3].regions[3]", "a string"),
        *[([INFO, INFO, INFO, value], "[3]", "an object") for value in (None, "x", 5, [])],
    ],
    "tuple[Mapping[str, JSON], ...]": [
        *[(value, "", "a list") for value in ("x", 5, True, {})],
        *[([{}, {}, {}, value], "[3]", "an object") for value in (None, "x", 5, [])],
    ],
    "Mapping[str, JSON]": [(value, "", "an object") for value in ("x", 5, True, [])],
    "Mapping[str, str]": [
        *[(value, "", "an object") for value in ("x", 5, True, [])],
        *[({"a": "b", "k": value}, ".k", "a string") for value in (None, *NO_TEXT)],
    ],
}
KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}

ROWS = [row for row in CAPABILITIES.values() if row.returns is not FlagValues]


def annotation(cls: type, name: str) -> str:
    """The annotation as it is written."""
    found = next(own[name] for own in map(inspect.get_annotations, cls.__mro__) if name in own)
    written = inspect.formatannotation(found).replace("object", "JSON")
    return re.sub(r"\b(datetime|decimal|collections\.abc|infrai_async\.models\.\w+)\.", "", written)


def wrong_values(cls: type, name: str) -> list[tuple[Any, str, str]]:
    written = annotation(cls, name)
    base = written.removesuffix(" | None")
    values = WRONG[base]
    if base == written and base != "JSON":
        values = [*values, (None, "", values[0][2])]
    return values


def names(cls: type) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.name not in ("extra", "metadata")]


def envelope(data: object, metadata: object = None, *, bare: bool = False) -> Envelope:
    body = data if bare else {"ok": True, "data": data, "error": None, "metadata": metadata}
    return open_envelope(Response(200, {}, json.dumps(body).encode()))


def read(row: Capability[Any], document: object) -> Any:
    """Read one document as the answer of ``row``, a list's as its only item."""
    if row.paged:
        return decode_page(row, envelope({"items": [document]})).items[0]
    return decode(row, envelope(document, bare=row.bare))


def full(row: Capability[Any]) -> dict[str, Any]:
    return copy.deepcopy(FULL[row.returns.__name__])


CASES = [(row.id, name) for row in ROWS for name in names(row.returns)]
MISTAKES = [
    pytest.param(row, value, place, wanted, id=f"{row.id}-{name}-{value!r}"[:120])
    for row in ROWS
    for name in names(row.returns)
    for value, place, wanted in (
        (full(row) | {name: bad}, f".{name}{at}", w) for bad, at, w in wrong_values(row.returns, name)
    )
]


def test_every_model_has_a_full_document_here() -> None:
    assert {cls: sorted(document) for cls, document in FULL.items()} == {
        row.returns.__name__: sorted(names(row.returns)) for row in ROWS
    }


# --- what is right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_to_dict_gives_the_document_back(row: Capability[Any]) -> None:
    assert read(row, full(row)).to_dict() == full(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_to_dict_is_plain_json(row: Capability[Any]) -> None:
    assert json.loads(json.dumps(read(row, full(row)).to_dict())) == full(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_an_answer_becomes_the_model_of_its_row(row: Capability[Any]) -> None:
    assert type(read(row, full(row))) is row.returns


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_unknown_fields_survive_at_their_own_level(row: Capability[Any]) -> None:
    new = {"new": {"deep": [1, None]}, "other": None}
    made = read(row, full(row) | new)
    assert made.extra == new
    assert made.to_dict() == full(row) | new


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_known_answer_has_nothing_extra(row: Capability[Any]) -> None:
    assert read(row, full(row)).extra == {}


def test_unknown_fields_of_a_nested_model_survive_there() -> None:
    made = read(CAPABILITIES["discovery.list"], {"capabilities": [{**INFO, "new": 1}], "more": 2})
    assert (made.capabilities[0].extra, made.extra) == ({"new": 1}, {"more": 2})
    assert made.to_dict() == {"capabilities": [{**INFO, "new": 1}], "more": 2}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("db.project.get", "mode"),
        ("db.project.get", "status"),
        ("storage.bucket.list", "acl"),
        ("storage.object.presign", "method"),
        ("cdn.distribution.get", "status"),
        ("flags.get", "type"),
        ("flags.get_value", "reason"),
        ("account.topup", "state"),
        ("discovery.get", "method"),
    ],
)
def test_a_new_value_of_an_enumeration_stays_as_it_came(row: str, name: str) -> None:
    made = read(CAPABILITIES[row], full(CAPABILITIES[row]) | {name: "something-new"})
    assert (getattr(made, name), made.to_dict()[name]) == ("something-new", "something-new")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_what_was_decoded_pickles_copies_and_hashes(row: Capability[Any]) -> None:
    made = read(row, full(row) | {"new": [1]})
    for twin in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
        assert (type(twin), twin, twin.extra, hash(twin)) == (type(made), made, {"new": [1]}, hash(made))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_what_was_decoded_is_frozen(row: Capability[Any]) -> None:
    made = read(row, full(row))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(made, names(row.returns)[0], "other")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_what_was_decoded_can_be_evolved(row: Capability[Any]) -> None:
    made = read(row, full(row))
    assert attrs.evolve(made, extra={"x": 1}).to_dict() == full(row) | {"x": 1}


# --- what is missing (D21) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row_id", "name"), CASES)
def test_a_missing_field_is_an_error_where_the_documentation_promises_it(row_id: str, name: str) -> None:
    row = CAPABILITIES[row_id]
    document = full(row)
    del document[name]
    if row.returns.__name__ == "FlagValue":
        document.pop("default_value", None)  # which ``value`` would be read from (D10)
    if name in PROMISED[row.returns.__name__]:
        with pytest.raises(DecodeError, match="missing in the response") as caught:
            read(row, document)
        assert caught.value.path == root(row) + f".{name}"
    else:
        assert getattr(read(row, document), name) == (True if name == "ok" else None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_promised_fields_alone_are_enough(row: Capability[Any]) -> None:
    document = {name: FULL[row.returns.__name__][name] for name in PROMISED[row.returns.__name__]}
    made = read(row, document)
    assert made.to_dict() == document | ({"ok": True} if isinstance(made, Ack) else {})


@pytest.mark.parametrize(("row_id", "name"), CASES)
def test_a_field_that_may_be_missing_may_be_null(row_id: str, name: str) -> None:
    row = CAPABILITIES[row_id]
    if "None" not in annotation(row.returns, name) and annotation(row.returns, name) != "JSON":
        with pytest.raises(DecodeError, match="got null"):
            read(row, full(row) | {name: None})
    else:
        assert getattr(read(row, full(row) | {name: None}), name) is None


def root(row: Capability[Any]) -> str:
    if row.bare:
        return "$"
    return "$.data.items[0]" if row.paged else "$.data"


# --- what is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "document", "place", "wanted"), MISTAKES)
def test_a_value_of_the_wrong_type_is_named_by_its_path(
    row: Capability[Any], document: dict[str, Any], place: str, wanted: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        read(row, document)
    assert caught.value.path == root(row) + place
    assert str(caught.value).startswith(f"{root(row)}{place}: expected {wanted}, got ")


@pytest.mark.parametrize("row", [row for row in ROWS if row.paged], ids=lambda row: row.id)
def test_a_wrong_item_is_named_by_its_index(row: Capability[Any]) -> None:
    first = names(row.returns)[0]
    items = [full(row), full(row), full(row), full(row) | {first: 5}, full(row) | {first: 6}]
    with pytest.raises(DecodeError) as caught:
        decode_page(row, envelope({"items": items}))
    assert caught.value.path == f"$.data.items[3].{first}"


@pytest.mark.parametrize("item", [None, "x", 5, True, []])
def test_an_item_that_is_no_object_is_named_by_its_index(item: object) -> None:
    row = CAPABILITIES["db.project.list"]
    with pytest.raises(DecodeError) as caught:
        decode_page(row, envelope({"items": [full(row), full(row), full(row), item]}))
    assert str(caught.value) == f"$.data.items[3]: expected an object, got {KINDS[type(item)]}"


@pytest.mark.parametrize("items", [None, "x", 5, True, {}])
def test_items_are_a_list(items: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_page(CAPABILITIES["db.project.list"], envelope({"items": items}))
    assert caught.value.path == "$.data.items"


@pytest.mark.parametrize("data", [None, "x", 5, True, []])
def test_a_page_is_an_object(data: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_page(CAPABILITIES["db.project.list"], envelope(data))
    assert str(caught.value) == f"$.data: expected an object with items, got {KINDS[type(data)]}"


@pytest.mark.parametrize("cursor", [5, 0, True, False, [], {}])
def test_a_next_cursor_is_a_string(cursor: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_page(CAPABILITIES["db.project.list"], envelope({"items": [], "next_cursor": cursor}))
    assert caught.value.path == "$.data.next_cursor"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ({"items": []}, None),
        ({"items": [], "next_cursor": None}, None),
        ({"items": [], "next_cursor": ""}, None),
        ({"items": [], "next_cursor": "c1"}, "c1"),
    ],
)
def test_an_absent_null_or_empty_cursor_is_the_last_page(page: dict[str, Any], expected: str | None) -> None:
    assert decode_page(CAPABILITIES["db.project.list"], envelope(page)).next_cursor == expected


def test_a_page_keeps_order_and_metadata() -> None:
    row = CAPABILITIES["db.project.list"]
    items = [full(row) | {"id": f"prj_{n}"} for n in range(3)]
    page = decode_page(row, envelope({"items": items}, {"request_id": "r1"}))
    assert [item.id for item in page] == ["prj_0", "prj_1", "prj_2"]
    assert {item.metadata.request_id for item in page} == {"r1"} == {page.metadata.request_id}
    assert len(page) == 3


@pytest.mark.parametrize("row", [row for row in ROWS if row.returns not in (Ack, PurgeResult)], ids=lambda row: row.id)
@pytest.mark.parametrize("data", [None, [], [1]], ids=repr)
def test_an_answer_that_is_no_object_is_an_error(row: Capability[Any], data: object) -> None:
    with pytest.raises(DecodeError):
        read(row, data)


def test_a_decode_error_does_not_show_the_value() -> None:
    with pytest.raises(DecodeError) as caught:
        read(CAPABILITIES["db.project.get"], full(CAPABILITIES["db.project.get"]) | {"connection_uri": ["hunter2"]})
    assert "hunter2" not in f"{caught.value} {caught.value!r}"


# --- metadata ----------------------------------------------------------------------------------------------------

METADATA = {"request_id": "r1", "cost_usd": 0.001, "latency_ms": 12, "vendor": "neon", "cache_hit": False}


def metadata(raw: object) -> Metadata:
    made: Model = decode(CAPABILITIES["account.balance"], envelope({"balance_usd": 1}, raw))
    return made.metadata


def test_metadata_says_what_the_call_cost_and_who_served_it() -> None:
    assert metadata(METADATA | {"new": 1}) == Metadata(
        request_id="r1",
        cost_usd=Decimal("0.001"),
        latency_ms=12,
        vendor="neon",
        cache_hit=False,
        extra={"new": 1},
    )


@pytest.mark.parametrize("raw", [None, {}, dict.fromkeys(METADATA)])
def test_metadata_may_be_absent_or_empty(raw: object) -> None:
    assert metadata(raw) == Metadata()


@pytest.mark.parametrize("absent", METADATA)
def test_any_of_the_metadata_may_be_missing(absent: str) -> None:
    assert getattr(metadata({k: v for k, v in METADATA.items() if k != absent}), absent) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, bad[0], id=f"{name}-{bad[0]!r}") for name in METADATA for bad in wrong_values(Metadata, name)],
)
def test_a_wrong_field_of_the_metadata_is_named_by_its_path(name: str, value: object) -> None:
    with pytest.raises(DecodeError) as caught:
        metadata(METADATA | {name: value})
    assert caught.value.path == f"$.metadata.{name}"


@pytest.mark.parametrize("raw", ["x", 5, True, [1], "", 0, False, []], ids=repr)
def test_metadata_is_an_object(raw: object) -> None:
    with pytest.raises(DecodeError) as caught:
        metadata(raw)
    assert caught.value.path == "$.metadata"


def test_wrong_metadata_of_a_page_is_an_error_too() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_page(CAPABILITIES["db.project.list"], envelope({"items": []}, {"cost_usd": "1"}))
    assert caught.value.path == "$.metadata.cost_usd"


# --- numbers and times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"0.1", "0.1"),
        (b"0.30000000000000004", "0.30000000000000004"),
        (b"1e-5", "0.00001"),
        (b"0.0001", "0.0001"),
        (b"2", "2"),
        (b"2.00", "2"),
        (b"0", "0"),
        (b"123456789.123456", "123456789.123456"),
        (b"-1.5", "-1.5"),
    ],
)
def test_money_is_read_from_the_shortest_decimal_form(written: bytes, expected: str) -> None:
    answer = Response(200, {}, b'{"ok":true,"data":{"balance_usd":' + written + b"}}")
    made: Any = decode(CAPABILITIES["account.balance"], open_envelope(answer))
    assert type(made.balance_usd) is Decimal
    assert made.balance_usd == Decimal(expected)


@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.sampled_from([1, 1.0, True, 0, 0.0, -0.0])
    )
)
def test_a_price_is_the_decimal_that_was_written_whatever_was_before(prices: list[float]) -> None:
    for price in prices:
        if not isinstance(price, bool):
            assert repr(metadata({"cost_usd": price}).cost_usd) == repr(Decimal(repr(exact_number(price))))


@pytest.mark.parametrize("prices", [(0.0, -0.0, 0.0), (-0.0, 0.0, 0, -0.0), (0, 0.0)])
def test_a_zero_keeps_its_sign_and_its_form(prices: tuple[float, ...]) -> None:
    for price in prices * 3:
        assert repr(metadata({"cost_usd": price}).cost_usd) == repr(Decimal(repr(price)))
        made = read(CAPABILITIES["account.balance"], {"balance_usd": price})
        assert repr(made.balance_usd) == repr(Decimal(repr(price)))


def exact_number(price: float) -> float:
    """What JSON makes of a number: beyond 64 bits, a float."""
    return price if isinstance(price, float) or -(2**63) <= price < 2**64 else float(price)


def test_prices_that_never_repeat_are_not_kept_for_ever() -> None:
    for number in range(3_000):
        assert metadata({"cost_usd": number + 0.5}).cost_usd == Decimal(number) + Decimal("0.5")
    assert len(_codegen._PRICES) <= 1_000


def test_a_thousand_small_costs_add_up_exactly() -> None:
    assert sum((metadata({"cost_usd": 0.1}).cost_usd or 0) for _ in range(1000)) == 100


def test_a_whole_float_is_a_whole_number() -> None:
    made = read(CAPABILITIES["flags.get"], {"key": "k", "version": 3.0})
    assert (made.version, type(made.version)) == (3, int)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678Z", datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T03:04:05+00:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
def test_a_time_is_aware(text: str, expected: datetime) -> None:
    made = read(CAPABILITIES["db.snapshot.get"], {"id": "s", "project_id": "p", "created_at": text})
    assert made.created_at == expected
    assert made.created_at.utcoffset() == expected.utcoffset()


# --- the forms that an answer may take -------------------------------------------------------------------------------

ACKS = [row for row in CAPABILITIES.values() if row.returns in (Ack, PurgeResult)]


@pytest.mark.parametrize("row", ACKS, ids=lambda row: row.id)
@pytest.mark.parametrize(("data", "expected"), [({"ok": True}, True), ({"ok": False}, False), ({}, True), (None, True)])
def test_an_acknowledgement_is_as_true_as_its_ok(row: Capability[Any], data: object, expected: bool) -> None:
    assert bool(decode(row, envelope(data))) is expected


@pytest.mark.parametrize("row", ACKS, ids=lambda row: row.id)
@pytest.mark.parametrize("data", ["x", 5, True, []], ids=repr)
def test_an_acknowledgement_of_another_type_is_an_error(row: Capability[Any], data: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(row, envelope(data))
    assert caught.value.path == "$.data"


def test_a_bare_acknowledgement_is_read_too() -> None:
    made = decode(CAPABILITIES["cdn.cache.purge"], envelope({"ok": True, "purge_id": "p"}, bare=True))
    assert (bool(made), made.to_dict()) == (True, {"ok": True, "purge_id": "p"})


def test_a_bare_null_is_no_acknowledgement() -> None:
    with pytest.raises(DecodeError):
        decode(CAPABILITIES["db.project.delete"], envelope(None, bare=True))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_flag_state_is_as_true_as_it_is_enabled(enabled: bool) -> None:
    made: Any = decode(CAPABILITIES["flags.is_enabled"], envelope({"enabled": enabled}))
    assert isinstance(made, FlagState)
    assert bool(made) is enabled


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"value": "a", "default_value": "b"}, "a"),
        ({"default_value": "b"}, "b"),
        ({"value": None, "default_value": "b"}, None),
        ({"value": False}, False),
        ({"value": {"x": [1]}}, {"x": [1]}),
        ("a", "a"),
        (5, 5),
        (0.5, 0.5),
        (True, True),
        (False, False),
    ],
)
def test_a_flags_value_is_its_value_else_its_default_else_the_bare_scalar(data: object, value: object) -> None:
    made: Any = decode(CAPABILITIES["flags.get_value"], envelope(data))
    assert made.value == value
    assert type(made.value) is type(value)


def test_a_value_read_from_the_default_keeps_the_default_too() -> None:
    made: Any = decode(CAPABILITIES["flags.get_value"], envelope({"default_value": "b", "new": 1}))
    assert (made.default_value, made.extra) == ("b", {"new": 1})


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ({"a": True, "b": "x"}, {"a": True, "b": "x"}),
        ({}, {}),
        ({"flags": {"a": 1}}, {"a": 1}),
        ({"flags": {}}, {}),
        ({"flags": True}, {"flags": True}),
        ({"flags": {"a": 1}, "b": 2}, {"flags": {"a": 1}, "b": 2}),
        ({"a": {"value": 1}}, {"a": 1}),
        ({"a": {"key": "a", "value": None, "enabled": True, "reason": "off", "version": 3}}, {"a": None}),
        ({"flags": {"a": {"value": 1, "variant": "x"}}}, {"a": 1}),
        ({"a": {"value": 1, "unit": "kg"}}, {"a": {"value": 1, "unit": "kg"}}),
        ({"a": {"b": 1}, "c": [1], "d": None}, {"a": {"b": 1}, "c": [1], "d": None}),
    ],
)
def test_all_flags_are_a_mapping_of_key_to_value(data: object, values: dict[str, object]) -> None:
    made: Any = decode(CAPABILITIES["flags.get_all"], envelope(data, {"request_id": "r1"}))
    assert dict(made) == made.to_dict() == values
    assert (len(made), list(made), made.metadata.request_id) == (len(values), list(values), "r1")


@pytest.mark.parametrize("data", [None, "x", 5, True, []], ids=repr)
def test_all_flags_of_another_type_are_an_error(data: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(CAPABILITIES["flags.get_all"], envelope(data))
    assert caught.value.path == "$.data"


@pytest.mark.parametrize(
    ("row", "promised", "other", "name"),
    [
        ("storage.bucket.list", "bucket", "name", "bucket"),
        ("cdn.distribution.get", "edge_hostname", "cname_target", "edge_hostname"),
        ("account.topup", "checkout_url", "next_action_url", "checkout_url"),
    ],
)
def test_a_field_is_read_from_its_other_name(row: str, promised: str, other: str, name: str) -> None:
    document = full(CAPABILITIES[row])
    value = document.pop(promised)
    made = read(CAPABILITIES[row], document | {other: value})
    assert (getattr(made, name), made.extra) == (value, {})


def test_a_balance_is_read_from_its_other_name() -> None:
    made = read(CAPABILITIES["account.balance"], {"balance": 1.5, "currency": "USD"})
    assert made.to_dict() == {"balance_usd": 1.5, "currency": "USD"}


def test_both_names_of_a_field_are_kept() -> None:
    document = full(CAPABILITIES["storage.bucket.list"]) | {"name": "other"}
    made = read(CAPABILITIES["storage.bucket.list"], document)
    assert (made.bucket, made.extra) == ("media", {"name": "other"})
    assert made.to_dict() == document


def test_a_wrong_value_under_the_other_name_is_named_so() -> None:
    document = full(CAPABILITIES["account.topup"])
    del document["checkout_url"]
    with pytest.raises(DecodeError) as caught:
        read(CAPABILITIES["account.topup"], document | {"next_action_url": 5})
    assert caught.value.path == "$.data.next_action_url"


def test_a_field_that_is_missing_under_both_names_says_so() -> None:
    with pytest.raises(DecodeError) as caught:
        read(CAPABILITIES["account.balance"], {"currency": "USD"})
    assert str(caught.value) == "$.data.balance_usd: missing in the response (balance_usd or balance)"


# --- the quick reading and the full one ------------------------------------------------------------------------------

MODELS = [getattr(models, name) for name in FULL] + [Metadata]
DOCUMENTS = {**FULL, "Metadata": METADATA}
ALIASES = {"bucket": "name", "edge_hostname": "cname_target", "value": "default_value", "balance_usd": "balance"}
ALIASES["checkout_url"] = "next_action_url"
ANY = st.none() | st.booleans() | st.integers(-5, 5) | st.just(2.0) | st.just(0.25) | st.text(max_size=2) | st.just([])


@st.composite
def documents(draw: st.DrawFn, cls: type) -> dict[str, Any]:
    """A full document with some fields missing, null, wrong or under their other name, and some unknown ones."""
    document: dict[str, Any] = {}
    for name, value in DOCUMENTS[cls.__name__].items():
        match draw(st.sampled_from(["full"] * 6 + ["missing", "null", "any", "alias", "both"])):
            case "full":
                document[name] = value
            case "null":
                document[name] = None
            case "any":
                document[name] = draw(ANY)
            case "alias":
                document[ALIASES.get(name, name)] = value
            case "both":
                document |= {name: value, ALIASES.get(name, name): draw(ANY)}
    return document | draw(
        st.dictionaries(st.sampled_from(["new", "extra", "metadata", "plain", "cls"]), ANY, max_size=2)
    )


def outcome(reader: Any, document: dict[str, Any]) -> object:
    before = copy.deepcopy(document)
    try:
        made = reader(document)
        result: object = (type(made), attrs.asdict(made, recurse=False), repr(made))
    except _Mismatch as mismatch:
        result = (type(mismatch), mismatch.path, mismatch.wanted, mismatch.found)
    assert document == before
    return result


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_the_quick_reading_is_the_full_one_whatever_came_before(cls: type[Any], data: st.DataObject) -> None:
    document, reader = data.draw(documents(cls)), _ModelReader(cls)
    for before in data.draw(st.lists(documents(cls), max_size=2)):
        with contextlib.suppress(_Mismatch):
            reader.read(before, None)
    metadata = Metadata(vendor="v")
    assert outcome(lambda plain: reader.read(plain, metadata), document) == outcome(
        lambda plain: _explain(cls, fields_of(cls), plain, metadata), document
    )


def test_a_decoded_project_equals_a_built_one() -> None:
    made = read(CAPABILITIES["db.project.get"], {"id": "a", "name": "b", "connection_uri": "c", "x": 1})
    assert made == Project(id="a", name="b", connection_uri="c", extra={"x": 1})


WHOLE = {"id": "b", "branch_name": "n", "project_id": "p", "connection_uri": "postgresql://h/d"}


def test_a_hostile_service_cannot_have_functions_made_without_end() -> None:
    reader = _ModelReader(Branch)
    for number in range(200):
        made = reader.read({**WHOLE, f"new_{number}": 1}, NO_METADATA)
        assert made.extra == {f"new_{number}": 1}
    assert len(reader._compiled) == 64


def test_a_hostile_service_cannot_have_a_function_made_without_end() -> None:
    reader, new = _ModelReader(Branch), {f"new_{number}": 1 for number in range(100)}
    assert reader.read({**WHOLE, **new}, NO_METADATA).extra == new
    assert reader._compiled == {}


def test_as_many_fields_are_not_the_same_fields() -> None:
    reader = _ModelReader(Branch)
    reader.read({**WHOLE, "new": 1}, NO_METADATA)
    made = reader.read({**WHOLE, "from_branch": "main"}, NO_METADATA)
    assert (made.from_branch, made.extra) == ("main", {})
    reader.read({**WHOLE, "created_at": "2026-01-02T03:04:05Z"}, NO_METADATA)
    assert reader.read({**WHOLE, "from_branch": "main"}, NO_METADATA).from_branch == "main"


def test_what_is_read_in_full_leaves_what_comes_next_to_its_function() -> None:
    reader = _ModelReader(Branch)
    reader.read(WHOLE, NO_METADATA)
    quick = reader.last
    with pytest.raises(_Mismatch):
        reader.read({"id": "b"}, NO_METADATA)
    assert reader.last is quick


# --- what is compiled ------------------------------------------------------------------------------------------------


def test_the_source_that_is_shown_is_the_one_that_runs() -> None:
    source = source_of(Snapshot, ("id", "project_id", "created_at", "new"))
    assert source is not None
    steps = source[source.rindex("            if len(") : source.rindex("        except")]  # of each, which come last
    shown = textwrap.dedent((_codegen.__doc__ or "").partition("::\n\n")[2])
    assert shown == source.replace(steps, "            (the same steps)\n")


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_nothing_of_a_document_gets_into_the_source(cls: type[Any]) -> None:
    new = "'); raise SystemExit  #"
    names = (*DOCUMENTS[cls.__name__], new)
    source = source_of(cls, names)
    assert new not in (source or "")
    made = _ModelReader(cls).read(DOCUMENTS[cls.__name__] | {new: 1}, NO_METADATA)
    assert made.extra == {new: 1}
