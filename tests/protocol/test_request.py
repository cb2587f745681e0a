"""From arguments to the request: where each one goes, how it is written, what is refused before anything is sent."""

from __future__ import annotations

import json
from collections import UserDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from urllib.parse import unquote

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import MultiDict

from infrai_async._protocol.request import (
    UNSET,
    Request,
    _source_of_target,
    build,
    canonical_body,
    check_key,
    check_names,
    route_for,
    seconds,
    target_of,
)
from infrai_async.capabilities import CAPABILITIES, Capability, Param, Route
from infrai_async.errors import InvalidArgument
from infrai_async.models import FlagRule, RolloutConfig, Variant

KEY = "8b1f0c"

# One call of each route, with every parameter that the documentation gives it.
ROUTES: list[tuple[str, int, dict[str, Any], str, bytes | None]] = [
    (
        "db.project.create",
        0,
        {
            "name": "shop",
            "vendor": "neon",
            "region": "us-east-1",
            "plan": "pro",
            "mode": "managed",
            "postgres_version": "17",
        },
        "/v1/db/project/create",
        b'{"mode":"managed","name":"shop","plan":"pro","postgres_version":"17","region":"us-east-1","vendor":"neon"}\n',
    ),
    ("db.project.get", 0, {"id": "prj_1"}, "/v1/db/project/get/prj_1", None),
    ("db.project.list", 0, {"cursor": "c1", "limit": 50}, "/v1/db/project/list?cursor=c1&limit=50", None),
    ("db.project.delete", 0, {"id": "prj_1"}, "/v1/db/project/delete/prj_1", None),
    (
        "db.branch.create",
        0,
        {"project_id": "prj_1", "branch_name": "dev", "from_branch": "main"},
        "/v1/db/branch/create",
        b'{"branch_name":"dev","from_branch":"main","project_id":"prj_1"}\n',
    ),
    ("db.branch.get", 0, {"id": "br_1"}, "/v1/db/branch/get/br_1", None),
    (
        "db.branch.list",
        0,
        {"project_id": "prj_1", "cursor": "c1", "limit": 50},
        "/v1/db/branch/list?project_id=prj_1&cursor=c1&limit=50",
        None,
    ),
    ("db.branch.delete", 0, {"id": "br_1"}, "/v1/db/branch/delete/br_1", None),
    (
        "db.snapshot.create",
        0,
        {"project_id": "prj_1", "label": "nightly"},
        "/v1/db/snapshot/create",
        b'{"label":"nightly","project_id":"prj_1"}\n',
    ),
    ("db.snapshot.get", 0, {"id": "snap_1"}, "/v1/db/snapshot/get/snap_1", None),
    (
        "db.snapshot.list",
        0,
        {"project_id": "prj_1", "cursor": "c1", "limit": 50},
        "/v1/db/snapshot/list?project_id=prj_1&cursor=c1&limit=50",
        None,
    ),
    (
        "db.snapshot.restore",
        0,
        {"id": "snap_1", "new_name": "copy"},
        "/v1/db/snapshot/restore/snap_1",
        b'{"new_name":"copy","snapshot_id":"snap_1"}\n',
    ),
    (
        "storage.bucket.create",
        0,
        {"bucket": "media", "vendor": "r2", "region": "eu", "acl": "private"},
        "/v1/storage/buckets",
        b'{"acl":"private","bucket":"media","region":"eu","vendor":"r2"}\n',
    ),
    (
        "storage.bucket.create",
        1,
        {"bucket": "media", "vendor": "r2", "region": "eu", "acl": "private"},
        "/v1/storage/bucket/create",
        b'{"acl":"private","name":"media","region":"eu","vendor":"r2"}\n',
    ),
    ("storage.bucket.list", 0, {}, "/v1/storage/buckets", None),
    ("storage.bucket.list", 1, {}, "/v1/storage/bucket/list", None),
    ("storage.bucket.get", 0, {"bucket": "a/b"}, "/v1/storage/bucket/get/a%2Fb", None),
    ("storage.bucket.delete", 0, {"bucket": "media"}, "/v1/storage/bucket/delete/media", None),
    (
        "storage.object.presign",
        0,
        {"bucket": "media", "key": "a/b.png", "method": "PUT", "expires_seconds": 600},
        "/v1/storage/buckets/media/objects/a%2Fb.png/presign",
        b'{"expires_seconds":600,"method":"PUT"}\n',
    ),
    (
        "storage.object.presign",
        1,
        {
            "bucket": "media",
            "key": "a/b.png",
            "method": "PUT",
            "expires_seconds": 600,
            "content_type": "image/png",
            "max_bytes": 1000,
            "response_disposition": "inline",
        },
        "/v1/storage/object/presign/media/a%2Fb.png",
        b'{"content_type":"image/png","expires_seconds":600,"max_bytes":1000,"op":"put","response_disposition":"inline"}\n',
    ),
    (
        "storage.object.delete",
        0,
        {"bucket": "media", "key": "a/b.png"},
        "/v1/storage/buckets/media/objects/a%2Fb.png",
        None,
    ),
    (
        "storage.object.delete",
        1,
        {"bucket": "media", "key": "a/b.png"},
        "/v1/storage/object/delete/media/a%2Fb.png",
        None,
    ),
    (
        "cdn.distribution.create",
        0,
        {
            "origin": "https://shop.example",
            "domain": "cdn.shop.example",
            "enabled": False,
            "cache_ttl_seconds": 60,
            "allowed_methods": ["GET", "HEAD"],
            "https_only": True,
            "tags": ["shop"],
            "vendor": "fastly",
        },
        "/v1/cdn/distribution/create",
        b'{"allowed_methods":["GET","HEAD"],"cache_ttl_seconds":60,"domain":"cdn.shop.example","enabled":false,'
        b'"https_only":true,"origin":"https://shop.example","tags":["shop"],"vendor":"fastly"}\n',
    ),
    ("cdn.distribution.get", 0, {"distribution_id": "d1"}, "/v1/cdn/distribution/get/d1", None),
    ("cdn.distribution.list", 0, {"cursor": "c1", "limit": 5}, "/v1/cdn/distribution/list?cursor=c1&limit=5", None),
    (
        "cdn.distribution.update",
        0,
        {"distribution_id": "d1", "enabled": True, "tags": []},
        "/v1/cdn/distribution/update/d1",
        b'{"enabled":true,"tags":[]}\n',
    ),
    ("cdn.distribution.delete", 0, {"distribution_id": "d1"}, "/v1/cdn/distribution/delete/d1", None),
    (
        "cdn.cache.purge",
        0,
        {"distribution_id": "d1", "paths": ["/a"], "tags": ["t"], "purge_everything": False, "vendor": "fastly"},
        "/v1/cdn/cache/purge",
        b'{"distribution_id":"d1","paths":["/a"],"purge_everything":false,"tags":["t"],"vendor":"fastly"}\n',
    ),
    (
        "cdn.cache.stats",
        0,
        {"distribution_id": "d1", "from_": "2026-01-01", "to": "2026-02-01"},
        "/v1/cdn/cache/stats?distribution_id=d1&from=2026-01-01&to=2026-02-01",
        None,
    ),
    (
        "flags.is_enabled",
        0,
        {"key": "checkout", "user_id": "u1", "context": {"plan": "pro"}},
        "/v1/flags/is_enabled/checkout?user_id=u1&context=%7B%22plan%22%3A%22pro%22%7D",
        None,
    ),
    (
        "flags.set",
        0,
        {
            "key": "checkout",
            "description": "new checkout",
            "type": "bool",
            "default_value": False,
            "rules": [{"attribute": "plan", "operator": "eq", "value": "pro", "serve": True}],
            "rollout": {"percentage": 10, "salt": "s", "sticky_unit": "user_id"},
            "tags": {"team": "shop"},
            "enabled": True,
            "version": 3,
        },
        "/v1/flags/set",
        b'{"default_value":false,"description":"new checkout","enabled":true,"key":"checkout",'
        b'"rollout":{"percentage":10,"salt":"s","sticky_unit":"user_id"},'
        b'"rules":[{"attribute":"plan","operator":"eq","serve":true,"value":"pro"}],"tags":{"team":"shop"},'
        b'"type":"bool","version":3}\n',
    ),
    (
        "flags.list",
        0,
        {"cursor": "c1", "limit": 5, "include_archived": True},
        "/v1/flags/list?cursor=c1&limit=5&include_archived=true",
        None,
    ),
    ("flags.get", 0, {"key": "checkout"}, "/v1/flags/get/checkout", None),
    (
        "flags.get_value",
        0,
        {"key": "checkout", "user_id": "u1", "context": {"n": 1}, "default": "blue"},
        "/v1/flags/get_value/checkout?user_id=u1&context=%7B%22n%22%3A1%7D&default=%22blue%22",
        None,
    ),
    ("flags.get_all", 0, {"user_id": "u1", "context": {}}, "/v1/flags/get_all?user_id=u1&context=%7B%7D", None),
    (
        "flags.toggle",
        0,
        {"key": "checkout", "enabled": False, "version": 3},
        "/v1/flags/toggle/checkout",
        b'{"enabled":false,"key":"checkout","version":3}\n',
    ),
    (
        "flags.rollout",
        0,
        {
            "key": "checkout",
            "percentage": 12.5,
            "salt": "s",
            "sticky_unit": "device_id",
            "version": 3,
            "variants": [{"key": "a", "value": 1, "weight": 1}],
        },
        "/v1/flags/rollout/checkout",
        b'{"key":"checkout","percentage":12.5,"salt":"s","sticky_unit":"device_id",'
        b'"variants":[{"key":"a","value":1,"weight":1}],"version":3}\n',
    ),
    ("flags.delete", 0, {"key": "checkout"}, "/v1/flags/delete/checkout", None),
    (
        "account.activate",
        0,
        {"region": "western", "device_kind": "cli"},
        "/v1/activate",
        b'{"device_kind":"cli","region":"western"}\n',
    ),
    ("account.balance", 0, {}, "/v1/account/balance", None),
    (
        "account.topup",
        0,
        {"amount_usd": Decimal("10.50"), "currency": "USD", "payment_method": "stripe", "return_url": "https://a/b"},
        "/v1/account/topup",
        b'{"amount":10.5,"amount_usd":10.5,"currency":"USD","payment_method":"stripe","return_url":"https://a/b"}\n',
    ),
    ("discovery.list", 0, {}, "/v1/discovery", None),
    ("discovery.get", 0, {"capability": "db.project.get"}, "/v1/discovery/db.project.get", None),
]
ROUTE_IDS = [f"{row}-{generation}" for row, generation, *_ in ROUTES]
FULL = {row: arguments for row, _, arguments, *_ in ROUTES}
DEDUPLICATING = {
    "db.project.create",
    "db.branch.create",
    "db.snapshot.create",
    "db.snapshot.restore",
    "storage.bucket.create",
    "storage.object.presign",
    "cdn.cache.purge",
    "account.topup",
}


def request(row_id: str, generation: int = 0, /, *, key_in_body: bool = False, **arguments: object) -> Request:
    row = CAPABILITIES[row_id]
    return build(row, row.routes[generation], arguments, KEY, key_in_body=key_in_body)


def refusal(row_id: str, /, **arguments: object) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        request(row_id, **{**FULL[row_id], **arguments})
    return caught.value


# --- every row ---------------------------------------------------------------------------------------------------


def test_every_route_of_the_table_has_its_call_here() -> None:
    assert sorted((row, generation) for row, generation, *_ in ROUTES) == sorted(
        (row.id, generation) for row in CAPABILITIES.values() for generation in range(len(row.routes))
    )


@pytest.mark.parametrize(("row", "generation", "arguments", "target", "body"), ROUTES, ids=ROUTE_IDS)
def test_each_argument_goes_where_the_documentation_puts_it(
    row: str, generation: int, arguments: dict[str, Any], target: str, body: bytes | None
) -> None:
    made = request(row, generation, **arguments)
    assert (made.method, made.target, made.body) == (CAPABILITIES[row].method, target, body)


@pytest.mark.parametrize(("row", "generation", "arguments"), [case[:3] for case in ROUTES], ids=ROUTE_IDS)
def test_the_idempotency_key_goes_with_whatever_changes_something(
    row: str, generation: int, arguments: dict[str, Any]
) -> None:
    made = request(row, generation, **arguments)
    assert made.idempotency_key == (None if made.method == "GET" else KEY)


@pytest.mark.parametrize(("row", "generation", "arguments"), [case[:3] for case in ROUTES], ids=ROUTE_IDS)
def test_a_key_that_the_caller_chose_is_in_the_body_of_the_rows_that_list_it(
    row: str, generation: int, arguments: dict[str, Any]
) -> None:
    made = request(row, generation, key_in_body=True, **arguments)
    assert json.loads(made.body or b"{}").get("idempotency_key") == (KEY if row in DEDUPLICATING else None)


@pytest.mark.parametrize(("row", "generation", "arguments"), [case[:3] for case in ROUTES], ids=ROUTE_IDS)
def test_a_generated_key_stays_out_of_the_body(row: str, generation: int, arguments: dict[str, Any]) -> None:
    assert "idempotency_key" not in json.loads(request(row, generation, **arguments).body or b"{}")


@pytest.mark.parametrize("absent", [None, UNSET], ids=["None", "UNSET"])
@pytest.mark.parametrize(
    ("row", "name"),
    [(row.id, name) for row in CAPABILITIES.values() for name, param in row.params.items() if param.required],
)
def test_a_required_argument_that_is_missing_is_named(row: str, name: str, absent: object) -> None:
    error = refusal(row, **{name: absent})
    assert str(error) == f"{row}: {name} is required"


@pytest.mark.parametrize(
    ("row", "name"),
    [(row.id, name) for row in CAPABILITIES.values() for name, param in row.params.items() if not param.required],
)
def test_an_optional_argument_that_is_not_given_is_not_sent(row: str, name: str) -> None:
    generation = len(CAPABILITIES[row].routes) - 1
    wire = CAPABILITIES[row].params[name].wire if name == "from_" else name
    made = request(row, generation, **{**FULL[row], name: UNSET})
    assert f"{wire}=" not in made.target
    assert wire not in json.loads(made.body or b"{}")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (row.id, name)
        for row in CAPABILITIES.values()
        for name, param in row.params.items()
        if not param.required and param.kind != "json"
    ],
)
def test_none_means_not_given(row: str, name: str) -> None:
    generation = len(CAPABILITIES[row].routes) - 1
    with_none, without = ({**FULL[row], name: absent} for absent in (None, UNSET))
    assert request(row, generation, **with_none) == request(row, generation, **without)


def test_none_is_a_value_where_any_json_is_one() -> None:
    assert request("flags.set", key="k", default_value=None).body == b'{"default_value":null,"key":"k"}\n'


def test_a_default_of_none_is_asked_for_as_null() -> None:
    assert request("flags.get_value", key="k", default=None).target == "/v1/flags/get_value/k?default=null"


# --- paths (D3) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "segment"),
    [
        ("prj_1", "prj_1"),
        ("a/b", "a%2Fb"),
        ("/", "%2F"),
        ("//", "%2F%2F"),
        ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        (".hidden", ".hidden"),
        ("a.b", "a.b"),
        ("50%", "50%25"),
        ("%2F", "%252F"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a#b", "a%23b"),
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("a;b", "a%3Bb"),
        ("a\\b", "a%5Cb"),
        ("a:b@c", "a%3Ab%40c"),
        ("\r\nHost: x", "%0D%0AHost%3A%20x"),
        ("\x00", "%00"),
        ("ключ", "%D0%BA%D0%BB%D1%8E%D1%87"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
        ("🚀", "%F0%9F%9A%80"),
        ("~tilde_-", "~tilde_-"),
        ("{id}", "%7Bid%7D"),
    ],
)
def test_an_id_is_exactly_one_encoded_segment(id: str, segment: str) -> None:
    assert request("db.project.get", id=id).target == f"/v1/db/project/get/{segment}"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example("..")
@example("/")
@example("%2E%2E")
def test_whatever_is_in_a_key_one_segment_carries_it_whole(key: str) -> None:
    target = request("storage.object.delete", bucket="media", key=key).target
    segments = target.split("/")
    assert len(segments) == 7
    assert unquote(segments[6], errors="strict") == key
    assert segments[6] not in (".", "..")
    assert target.isascii()
    assert "?" not in target
    assert "#" not in target


@given(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1)] * 2)
def test_two_path_arguments_never_run_into_each_other(bucket: str, key: str) -> None:
    segments = request("storage.object.presign", bucket=bucket, key=key).target.split("/")
    assert [unquote(segments[4]), segments[5], unquote(segments[6]), segments[7]] == [bucket, "objects", key, "presign"]


@pytest.mark.parametrize(
    ("row", "name"),
    [(row.id, name) for row in CAPABILITIES.values() for name, param in row.params.items() if param.where == "path"],
)
def test_an_empty_path_id_is_refused(row: str, name: str) -> None:
    assert str(refusal(row, **{name: ""})) == f"{row}: {name} must not be empty"


def test_an_empty_string_in_a_body_is_the_services_to_judge() -> None:
    assert request("db.project.create", name="").body == b'{"name":""}\n'


# --- queries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false")])
def test_a_boolean_in_a_query_is_true_or_false(value: bool, text: str) -> None:
    assert request("flags.list", include_archived=value).target == f"/v1/flags/list?include_archived={text}"


@pytest.mark.parametrize(
    ("default", "text"),
    [
        (True, "true"),
        (0, "0"),
        (1.5, "1.5"),
        ("blue", "%22blue%22"),
        ("true", "%22true%22"),
        ([1, 2], "%5B1%2C2%5D"),
        ({"b": 1, "a": 2}, "%7B%22a%22%3A2%2C%22b%22%3A1%7D"),
        ("é", "%22%C3%A9%22"),
    ],
)
def test_a_json_argument_of_a_query_is_compact_json(default: object, text: str) -> None:
    assert request("flags.get_value", key="k", default=default).target == f"/v1/flags/get_value/k?default={text}"


def test_a_context_is_one_parameter_of_canonical_json() -> None:
    target = request("flags.get_all", context={"b": [True, None], "a": {"x": "&="}}).target
    assert target == (
        "/v1/flags/get_all?context=%7B%22a%22%3A%7B%22x%22%3A%22%26%3D%22%7D%2C%22b%22%3A%5Btrue%2Cnull%5D%7D"
    )


def test_a_cursor_cannot_break_out_of_its_parameter() -> None:
    assert request("db.project.list", cursor="a&limit=1#?").target == "/v1/db/project/list?cursor=a%26limit%3D1%23%3F"


def test_a_plus_in_a_query_stays_a_plus() -> None:
    assert request("cdn.cache.stats", to="+1 d").target == "/v1/cdn/cache/stats?to=%2B1%20d"


# --- bodies ------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=12,
)


def test_a_body_is_canonical_json() -> None:
    assert (
        canonical_body({"b": [1, 2.5], "a": {"d": None, "c": "é"}}) == '{"a":{"c":"é","d":null},"b":[1,2.5]}\n'.encode()
    )


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_json_gives_back_what_a_body_was_made_of(body: dict[str, Any]) -> None:
    encoded = canonical_body(body)
    assert json.loads(encoded.decode("utf-8")) == body
    assert encoded.endswith(b"}\n")
    assert encoded.count(b"\n") == 1


@given(JSON)
def test_any_json_value_of_a_flag_arrives_as_it_is(value: Any) -> None:
    assert json.loads(request("flags.set", key="k", default_value=value).body or b"") == {
        "key": "k",
        "default_value": value,
    }


def test_the_order_of_the_arguments_does_not_show_in_the_body() -> None:
    one = request("db.branch.create", project_id="p", branch_name="b")
    other = request("db.branch.create", branch_name="b", project_id="p")
    assert one.body == other.body == b'{"branch_name":"b","project_id":"p"}\n'


def test_a_write_without_arguments_sends_an_empty_object() -> None:
    assert request("account.activate").body == b"{}\n"


@pytest.mark.parametrize(("row", "id"), [("db.project.delete", "id"), ("flags.delete", "key")])
def test_a_delete_has_no_body(row: str, id: str) -> None:
    assert request(row, key_in_body=True, **{id: "x"}).body is None


# --- what the wire calls differently (D5, D6, D12, D20) --------------------------------------------------------------


@pytest.mark.parametrize(("verb", "op"), [("GET", "get"), ("PUT", "put")])
def test_the_running_service_gets_the_verb_as_a_lower_case_op(verb: str, op: str) -> None:
    made = request("storage.object.presign", 1, bucket="b", key="k", method=verb)
    assert made.body == f'{{"op":"{op}"}}\n'.encode()


@pytest.mark.parametrize("row", ["cdn.distribution.update", "storage.object.presign"])
def test_a_path_id_is_not_repeated_in_other_bodies(row: str) -> None:
    body = json.loads(request(row, len(CAPABILITIES[row].routes) - 1, **FULL[row]).body or b"")
    assert body.keys().isdisjoint({"distribution_id", "bucket", "key"})


def test_a_repeated_id_is_not_percent_encoded_in_the_body() -> None:
    made = request("flags.toggle", key="a/ü", enabled=True, version=1)
    assert made.target == "/v1/flags/toggle/a%2F%C3%BC"
    assert json.loads(made.body or b"")["key"] == "a/ü"


def test_a_rollout_is_sent_flat() -> None:
    body = json.loads(request("flags.rollout", **FULL["flags.rollout"]).body or b"")
    assert "rollout" not in body


# --- types that have a JSON form ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03%3A04%3A05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC), "2026-01-02T03%3A04%3A05.000600Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T03%3A04%3A05%2B02%3A00"),
    ],
)
def test_a_time_is_sent_as_iso_8601(moment: datetime, text: str) -> None:
    assert request("cdn.cache.stats", from_=moment).target == f"/v1/cdn/cache/stats?from={text}"


@pytest.mark.parametrize(
    ("length", "number"), [(timedelta(minutes=10), "600"), (timedelta(milliseconds=1500), "1.5"), (timedelta(0), "0")]
)
def test_a_length_of_time_is_sent_in_seconds(length: timedelta, number: str) -> None:
    made = request("storage.object.presign", bucket="b", key="k", expires_seconds=length)
    assert made.body == f'{{"expires_seconds":{number},"method":"PUT"}}\n'.encode()


@pytest.mark.parametrize(
    ("amount", "number"),
    [(Decimal("10.10"), "10.1"), (Decimal(25), "25"), (Decimal("25.00"), "25"), (Decimal("0.001"), "0.001")],
)
def test_money_is_sent_as_the_number_that_it_is(amount: Decimal, number: str) -> None:
    made = request("account.topup", amount_usd=amount)
    assert made.body == f'{{"amount":{number},"amount_usd":{number}}}\n'.encode()


def test_a_tuple_is_a_list() -> None:
    made = request("cdn.cache.purge", distribution_id="d", paths=("/a", "/b"))
    assert made.body == b'{"distribution_id":"d","paths":["/a","/b"]}\n'


def test_any_mapping_is_an_object() -> None:
    assert request("flags.set", key="k", tags=UserDict(team="shop")).body == b'{"key":"k","tags":{"team":"shop"}}\n'


def test_a_flag_rule_is_sent_as_the_contract_writes_it() -> None:
    made = request("flags.set", key="k", rules=[FlagRule(attribute="age", operator="in", value=(1, 2), serve="b")])
    assert json.loads(made.body or b"")["rules"] == [
        {"attribute": "age", "operator": "in", "value": [1, 2], "serve": "b"}
    ]


def test_a_rollout_helper_is_sent_as_the_contract_writes_it() -> None:
    rollout = RolloutConfig(percentage=25, salt="s", variants=(Variant(key="a", value={"x": 1}, weight=2),))
    assert json.loads(request("flags.set", key="k", rollout=rollout).body or b"")["rollout"] == {
        "percentage": 25,
        "salt": "s",
        "sticky_unit": "user_id",
        "variants": [{"key": "a", "value": {"x": 1}, "weight": 2}],
    }


def test_a_variant_helper_and_a_plain_one_mix() -> None:
    arguments = {**FULL["flags.rollout"], "variants": [Variant(key="a", value=1), {"name": "b", "share": 3}]}
    assert json.loads(request("flags.rollout", **arguments).body or b"")["variants"] == [
        {"key": "a", "value": 1, "weight": 1},
        {"name": "b", "share": 3},
    ]


class Key(str, Enum):  # noqa: UP042 - a StrEnum formats as its value; this is the kind that does not
    CHECKOUT = "checkout"


class Size(int, Enum):
    SMALL = 5


def test_a_string_enumeration_is_sent_as_its_value_in_a_path() -> None:
    assert request("flags.get", key=Key.CHECKOUT).target == "/v1/flags/get/checkout"


def test_a_string_enumeration_is_sent_as_its_value_in_a_query() -> None:
    assert request("flags.get_all", user_id=Key.CHECKOUT).target == "/v1/flags/get_all?user_id=checkout"


def test_a_string_enumeration_is_sent_as_its_value_in_a_body() -> None:
    assert request("db.project.create", name=Key.CHECKOUT).body == b'{"name":"checkout"}\n'


def test_a_number_enumeration_is_sent_as_its_value() -> None:
    assert request("db.project.list", limit=Size.SMALL).target == "/v1/db/project/list?limit=5"


# --- what has none --------------------------------------------------------------------------------------------------

BAD_BY_KIND: dict[str, tuple[str, list[object]]] = {
    "string": ("a string", [7, 1.5, True, ["x"], {"x": 1}]),
    "number": ("a number", ["7", True, [7], {"x": 1}]),
    "integer": ("a whole number", ["7", 1.5, True, [7], {"x": 1}]),
    "boolean": ("true or false", ["true", 1, 0, [True], {"x": 1}]),
    "object": ("an object (a mapping with string keys)", ["x", 7, True, [1], [{"x": 1}]]),
    "strings": ("a list of strings", ["x", 7, True, [1], ["x", None], {"x": 1}]),
    "objects": ("a list of objects", ["x", 7, True, ["x"], [{"x": 1}, None], {"x": 1}]),
}


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        pytest.param(row.id, name, value, id=f"{row.id}-{name}-{value!r}")
        for row in CAPABILITIES.values()
        for name, param in row.params.items()
        if param.kind != "json" and not param.choices and not param.bounds
        for value in BAD_BY_KIND[param.kind][1]
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(row: str, name: str, value: object) -> None:
    wanted = BAD_BY_KIND[CAPABILITIES[row].params[name].kind][0]
    generation = len(CAPABILITIES[row].routes) - 1  # the one that takes every parameter
    with pytest.raises(InvalidArgument) as caught:
        request(row, generation, **{**FULL[row], name: value})
    assert str(caught.value) == f"{row}: {name} must be {wanted}, not {type(value).__name__}"


ENUMERATIONS = {
    ("db.project.create", "mode"): "'managed', 'byok'",
    ("storage.bucket.create", "acl"): "'private', 'public'",
    ("storage.object.presign", "method"): "'GET', 'PUT'",
    ("flags.set", "type"): "'bool', 'string', 'number', 'json'",
    ("flags.rollout", "sticky_unit"): "'user_id', 'session_id', 'device_id'",
    ("account.activate", "region"): "'auto', 'western', 'china'",
}


@pytest.mark.parametrize("value", ["", "Managed", "get", "user"])
@pytest.mark.parametrize(("row", "name"), ENUMERATIONS)
def test_a_value_outside_a_documented_enumeration_is_refused(row: str, name: str, value: str) -> None:
    expected = f"{row}: {name} must be one of {ENUMERATIONS[row, name]}, not {value!r}"
    assert str(refusal(row, **{name: value})) == expected


@pytest.mark.parametrize("value", [-0.1, 100.1, -1, 101, 10**30, Decimal("100.0001")])
def test_a_percentage_lies_between_0_and_100(value: object) -> None:
    message = f"flags.rollout: percentage must be between 0 and 100, not {value!r}"
    assert str(refusal("flags.rollout", percentage=value)) == message


@pytest.mark.parametrize("value", [0, 100, 0.0, 100.0, Decimal(100)])
def test_both_ends_of_the_percentage_are_allowed(value: Any) -> None:
    body = json.loads(request("flags.rollout", **{**FULL["flags.rollout"], "percentage": value}).body or b"")
    assert body["percentage"] == value


@pytest.mark.parametrize("row_name", [("flags.rollout", "percentage"), ("flags.set", "default_value")])
@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1e400"),
    ],
    ids=str,
)
def test_a_number_that_json_has_not_is_refused(row_name: tuple[str, str], value: object) -> None:
    row, name = row_name
    assert str(refusal(row, **{name: value})) == f"{row}: {name} must be finite"


def test_a_number_that_json_has_not_is_found_deep_inside() -> None:
    assert str(refusal("flags.set", rollout={"a": [{"b": float("nan")}]})) == "flags.set: rollout must be finite"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"], ids=ascii)
@pytest.mark.parametrize(
    ("row", "name"), [("db.project.get", "id"), ("db.project.create", "name"), ("flags.get_all", "user_id")]
)
def test_half_a_surrogate_pair_is_refused(row: str, name: str, text: str) -> None:
    message = f"{row}: {name} holds half of a surrogate pair, which UTF-8 cannot encode"
    assert str(refusal(row, **{name: text})) == message


@pytest.mark.parametrize("context", [{"\ud800": 1}, {"a": "\ud800"}, {"a": ["\ud800"]}], ids=ascii)
def test_half_a_surrogate_pair_is_found_inside_an_object(context: dict[str, object]) -> None:
    assert str(refusal("flags.get_all", context=context)).startswith("flags.get_all: context holds half")


def test_a_time_without_a_zone_is_refused() -> None:
    error = refusal("cdn.cache.stats", from_=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake itself
    assert str(error).startswith("cdn.cache.stats: from_ has no time zone: pass an aware datetime")


@pytest.mark.parametrize(
    ("key", "kind"), [(1, "int"), (None, "NoneType"), (("a",), "tuple"), (b"a", "bytes"), (True, "bool")]
)
def test_an_object_has_string_keys(key: object, kind: str) -> None:
    message = f"flags.get_all: context has a key of type {kind}; JSON keys are strings"
    assert str(refusal("flags.get_all", context={"deep": {key: 1}})) == message


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"x", "bytes"),
        (bytearray(b"x"), "bytearray"),
        (memoryview(b"x"), "memoryview"),
        ({1, 2}, "set"),
        (object(), "object"),
        (1j, "complex"),
        (iter("ab"), "str_ascii_iterator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_without_a_json_form_is_refused(value: object, kind: str) -> None:
    assert str(refusal("flags.set", default_value=value)) == (
        f"flags.set: default_value has no JSON form: it is of type {kind}"
    )


@pytest.mark.parametrize("row_name", [("db.project.get", "id"), ("db.project.create", "name")])
def test_bytes_are_no_string(row_name: tuple[str, str]) -> None:
    row, name = row_name
    assert str(refusal(row, **{name: b"x"})) == f"{row}: {name} has no JSON form: it is of type bytes"


def test_nesting_beyond_reason_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert (
        str(refusal("flags.set", default_value=deep))
        == "flags.set: default_value is nested too deeply: at most 100 levels"
    )


@pytest.mark.parametrize(("levels", "fits"), [(1, True), (100, True), (101, False), (300, False)])
def test_the_limit_of_nesting_is_exact(levels: int, fits: bool) -> None:
    deep: Any = 1
    for number in range(levels):
        deep = [deep] if number % 2 else {"k": deep}
    if fits:
        assert request("flags.set", key="f", default_value=deep).body
    else:
        assert "default_value is nested too deeply" in str(refusal("flags.set", key="f", default_value=deep))


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    assert (
        str(refusal("flags.get_all", context=endless))
        == "flags.get_all: context is nested too deeply: at most 100 levels"
    )


def test_an_integer_too_long_to_be_written_is_refused_by_name() -> None:
    error = refusal("flags.set", default_value=10**5000)
    assert str(error).startswith("flags.set: default_value ")


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        ("db.project.create", "name", ["hunter2"]),
        ("flags.set", "rules", ["hunter2"]),
        ("flags.get_all", "context", "hunter2"),
        ("storage.object.presign", "key", b"hunter2"),
        ("cdn.distribution.create", "origin", {"password": "hunter2"}),
        ("account.topup", "return_url", {"hunter2"}),
        ("account.topup", "amount_usd", "hunter2"),
    ],
)
def test_a_refusal_shows_no_value_that_might_be_a_secret(row: str, name: str, value: object) -> None:
    error = refusal(row, **{name: value})
    assert "hunter2" not in f"{error} {error!r}"


def test_the_body_is_not_in_a_requests_repr() -> None:
    assert "hunter2" not in repr(request("cdn.distribution.create", origin="https://u:hunter2@h"))


def test_hostile_names_are_the_services_to_judge() -> None:
    name = "'; DROP TABLE x; --" + "n" * 10_000
    assert request("db.project.create", name=name).body == b'{"name":"' + name.encode() + b'"}\n'


@pytest.mark.parametrize("version", [0, -1, 10**12])
def test_the_range_of_a_version_is_the_services_to_judge(version: int) -> None:
    body = json.loads(request("flags.toggle", key="k", enabled=True, version=version).body or b"")
    assert body["version"] == version


# --- names and keys ------------------------------------------------------------------------------------------------


def test_the_wires_spelling_of_from_is_taken_too() -> None:
    assert check_names(CAPABILITIES["cdn.cache.stats"], {"from": "2026"}) == {"from_": "2026"}


def test_public_names_stay_as_they_are() -> None:
    assert check_names(CAPABILITIES["db.project.get"], {"id": "x"}) == {"id": "x"}


@pytest.mark.parametrize("names", [("from", "from_"), ("from_", "from")])
def test_two_spellings_of_one_argument_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="from_ is given twice: pass it once"):
        check_names(CAPABILITIES["cdn.cache.stats"], dict.fromkeys(names, "2026"))


def test_a_name_that_a_mapping_holds_twice_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="limit is given twice"):
        check_names(CAPABILITIES["db.project.list"], MultiDict([("limit", 1), ("limit", 2)]))


@pytest.mark.parametrize("arguments", [[("limit", 1), ("limit", 2)], [], "", 0, False, {"limit"}], ids=repr)
def test_arguments_are_a_mapping(arguments: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^db\.project\.list: arguments must be a mapping"):
        check_names(CAPABILITIES["db.project.list"], arguments)


@pytest.mark.parametrize(
    ("row", "name", "message"),
    [
        (
            "db.project.create",
            "nmae",
            "db.project.create: nmae is not an argument of this capability: did you mean name?",
        ),
        ("db.project.get", "zzz", "db.project.get: zzz is not an argument of this capability: it takes id"),
        ("account.balance", "zzz", "account.balance: zzz is not an argument of this capability: it takes none"),
        ("db.project.get", 5, "db.project.get: 5 is not an argument of this capability: it takes id"),
    ],
)
def test_a_name_that_is_none_is_refused_with_advice(row: str, name: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_names(CAPABILITIES[row], {name: 1})
    assert str(caught.value) == message


@pytest.mark.parametrize("key", ["a", "deploy-42", "x" * 255, "~!@#$ %^&*()"])
def test_a_key_that_a_header_can_carry_is_taken(key: str) -> None:
    assert check_key(CAPABILITIES["db.project.create"], key) == key


@pytest.mark.parametrize("key", ["", "a\nb", "a\r\nX: y", "é", "\x00", "\x7f", 5, None, b"a"], ids=ascii)
def test_a_key_that_no_header_can_carry_is_refused_by_name(key: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^db\.project\.create: idempotency_key must be a non-empty string"):
        check_key(CAPABILITIES["db.project.create"], key)


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (0.5, 0.5), (timedelta(minutes=1), 60.0)])
def test_a_time_limit_is_seconds_or_a_timedelta(value: float | timedelta, expected: float) -> None:
    assert seconds("timeout", value) == expected


@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), True, "5", None, timedelta(0), timedelta(seconds=-1)], ids=repr
)
def test_a_time_limit_is_positive_and_finite(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^timeout must be a positive number of seconds or a timedelta$"):
        seconds("timeout", value)


def test_unset_says_its_name() -> None:
    assert repr(UNSET) == "UNSET"


def test_an_account_of_ones_own_needs_the_name_of_its_vendor() -> None:
    error = refusal("db.project.create", mode="byok", vendor=None)
    assert str(error) == "db.project.create: vendor is required with mode='byok'"
    assert b'"vendor":"neon"' in (request("db.project.create", name="x", mode="byok", vendor="neon").body or b"")


@pytest.mark.parametrize(("generation", "verb"), [(0, b'"method":"PUT"'), (1, b'"op":"put"')])
def test_the_verb_of_a_presigned_url_is_always_sent(generation: int, verb: bytes) -> None:
    assert verb in (request("storage.object.presign", generation, bucket="b", key="k").body or b"")


@pytest.mark.parametrize("value", ["x", 1.5, True, [10]])
def test_an_argument_of_one_generation_alone_is_checked_on_the_route_that_carries_it(value: object) -> None:
    row = CAPABILITIES["storage.object.presign"]
    arguments = {"bucket": "b", "key": "k", "max_bytes": value}
    with pytest.raises(InvalidArgument, match=r"^storage\.object\.presign: max_bytes must be"):
        build(row, route_for(row, arguments), arguments)


@pytest.mark.parametrize("name", ["content_type", "max_bytes", "response_disposition"])
def test_no_request_is_built_for_a_route_that_does_not_carry_an_argument(name: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"no route that takes {name}: omit {name}$"):
        request("storage.object.presign", 0, bucket="b", key="k", **{name: FULL["storage.object.presign"][name]})


@pytest.mark.parametrize("row", CAPABILITIES.values(), ids=lambda row: row.id)
def test_one_route_of_each_row_carries_every_argument(row: Capability[Any]) -> None:
    assert any(row.params.keys() == route.names for route in row.routes)


# --- the quick way to a plain target ---

SOURCE = """\
def target(arguments):
    query = ''
    value_0 = arguments.get('capability')
    if not (value_0.__class__ is str and (value_0.isascii() and value_0.isidentifier() or segment(value_0))):
        return None
    value_1 = arguments.get('limit')
    if not (value_1 is None or value_1.__class__ is int and value_1.bit_length() <= 64):
        return None
    if value_1 is not None:
        query += '&limit=' + str(value_1)
    return '/v1/usage/' + value_0 + (query and '?' + query[1:])
"""
USAGE = Route(
    "/v1/usage/{capability}",
    (Param("capability", where="path", required=True), Param("limit", "integer", where="query")),
)
LOOSE = (
    st.none()
    | st.text(max_size=4)
    | st.text("aZ_09.~-", max_size=4)
    | st.integers(-(2**65), 2**65)
    | st.sampled_from([".", "..", ".a", "a.b", "", "é", "²", "\ud800", "a\n", UNSET, True, 10**30, 2.5, [], b"a"])
    | st.sampled_from([Key.CHECKOUT, Size.SMALL])
)
READS = [row for row in CAPABILITIES.values() if not row.mutates]
PLAIN = [(row, generation) for row in READS for generation, route in enumerate(row.routes) if route.plain]


@pytest.mark.parametrize("row", READS, ids=lambda row: row.id)
@given(data=st.data())
def test_a_plain_target_is_the_one_that_is_built_in_full(row: Capability[Any], data: st.DataObject) -> None:
    for route in row.routes:
        arguments = {name: data.draw(LOOSE) for name in row.params if data.draw(st.booleans())}
        expected = in_full(row, route, arguments)
        assert target_of[route](arguments) in (None, getattr(expected, "target", None))
        assert attempt(row, route, arguments) == expected


def in_full(row: Capability[Any], route: Route, arguments: dict[str, object]) -> object:
    route = attrs.evolve(route)
    object.__setattr__(route, "plain", False)
    return attempt(row, route, arguments)


def attempt(row: Capability[Any], route: Route, arguments: dict[str, object]) -> object:
    try:
        return build(row, route, arguments)
    except InvalidArgument as error:
        return str(error)


def test_most_of_what_only_reads_has_a_plain_route() -> None:
    full_only = {"flags.is_enabled", "flags.get_value", "flags.get_all", "flags.list"}  # for a context, or a truth
    assert {row.id for row in READS} - {row.id for row, _ in PLAIN} == full_only


@pytest.mark.parametrize("text", ["prj_1", "0190c6a8-5b1e-7c3a-9d52", "checkout.v2", "~", "_"])
@pytest.mark.parametrize(("row", "generation"), PLAIN, ids=lambda value: getattr(value, "id", value))
def test_an_unreserved_text_goes_the_quick_way(row: Capability[Any], generation: int, text: str) -> None:
    route = row.routes[generation]
    arguments: dict[str, object] = {param.name: text if param.free else 2**64 - 1 for param in route.params}
    assert target_of[route](arguments) == build(row, route, arguments).target
    required: dict[str, object] = {param.name: text for param in route.params if param.required}
    absent = dict.fromkeys(row.params) | required
    assert target_of[route](required) == target_of[route](absent) == build(row, route, required).target


@pytest.mark.parametrize(
    "value", ["", ".", "..", ".a", "a b", "a/b", "é", "a\n", 5, None, UNSET, Key.CHECKOUT], ids=ascii
)
def test_whatever_else_a_path_may_hold_goes_the_long_way(value: object) -> None:
    assert target_of[USAGE]({"capability": value}) is None


@pytest.mark.parametrize("value", [2**64, -(2**64), True, 5.0, "5", UNSET, Size.SMALL])
def test_whatever_else_a_number_may_be_goes_the_long_way(value: object) -> None:
    assert target_of[USAGE]({"capability": "a", "limit": value}) is None


def test_the_source_of_a_target_is_this() -> None:
    assert _source_of_target(USAGE) == SOURCE


def test_nothing_that_a_row_says_is_run() -> None:
    hostile = "x' + str(1/0) + '"
    params = (Param("id", where="path", required=True), Param(hostile, where="query", wire=hostile))
    assert target_of[Route(f"/v1/{hostile}/{{id}}", params)]({"id": "a", hostile: "b"}) == (
        f"/v1/{hostile}/a?{hostile}=b"
    )
