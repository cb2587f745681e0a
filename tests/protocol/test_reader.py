"""The quick reading of an answer and the full one come to the same, whatever the answer is."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async._protocol import decode
from infrai_async._protocol import json as parsers
from infrai_async._protocol.decode import PAGE, VALUE
from infrai_async._protocol.response import Response, cost_of, open_envelope, request_id, vendor_of
from infrai_async.capabilities import CAPABILITIES, Capability
from infrai_async.errors import DecodeError
from infrai_async.models import Ack, FlagValues, Metadata, Model, Page

Loads: TypeAlias = Callable[[bytes], object]
Path: TypeAlias = tuple[str | int, ...]

PARSERS: list[Loads] = list(dict.fromkeys([parsers.loads, parsers.loads_by_standard_library]))
IN_FULL = {"discovery.list", "discovery.get"}  # they come without an envelope
ROWS = list(CAPABILITIES.values())
METADATA = {"request_id": "r1", "cost_usd": 0.001, "latency_ms": 12, "vendor": "neon", "cache_hit": False}
SAMPLES: dict[object, object] = {
    str: "text",
    bool: True,
    int: 7,
    float: 0.25,
    Decimal: 1.5,
    datetime: "2026-01-02T03:04:05Z",
    object: {"deep": [1, None]},
}


# --- answers -----------------------------------------------------------------------------------------------------


def sample(annotation: Any) -> Any:
    """What the contract has where a model is annotated so."""
    inner = [arg for arg in get_args(annotation) if arg is not NoneType]
    match get_origin(annotation):
        case None if attrs.has(annotation):
            return document(annotation)
        case origin if origin in (Union, UnionType):
            return sample(inner[0])
        case origin if origin is tuple:
            return [sample(inner[0]), sample(inner[0])]
        case origin if origin is Mapping:
            return {"a": sample(inner[1]), "b": sample(inner[1])}
    return copy.deepcopy(SAMPLES[annotation])


def document(cls: type[Any], *, promised: bool = False) -> dict[str, Any]:
    """All that the contract documents of a model, or only what it promises."""
    if cls is FlagValues:
        return {"a": True, "b": {"key": "b", "value": None, "reason": "rule"}, "c": {"other": 1}}
    attrs.resolve_types(cls)
    fields = [field for field in attrs.fields(cls) if field.name not in ("extra", "metadata")]
    return {field.name: sample(field.type) for field in fields if not promised or field.default is attrs.NOTHING}


def answer(row: Capability[Any], *, promised: bool = False, metadata: object = METADATA) -> dict[str, Any]:
    """A documented answer of ``row``."""
    one = document(row.returns, promised=promised)
    if row.bare:
        return one
    data = {"items": [one, copy.deepcopy(one), copy.deepcopy(one)], "next_cursor": "c1"} if row.paged else one
    return {"ok": True, "data": data, "error": None, "metadata": copy.deepcopy(metadata)}


def encoded(plain: object) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


# --- the two readings ----------------------------------------------------------------------------------------------


def outcomes(row: Capability[Any], body: bytes, loads: Loads) -> tuple[Any, Any]:
    """What the quick reading returns, and the full one, where it comes to a value."""
    reader = PAGE if row.paged else VALUE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsers, "loads", loads)
        quick = reader.quick(row, body)
        compile_nothing(patch)
        try:
            envelope = open_envelope(Response(200, {}, body))
            full = reader.full(row, envelope) if envelope.error is None else None
        except DecodeError:
            full = None
    if quick is not None:
        cost = cost_of(envelope)
        assert repr(quick.metadata.cost_usd) == repr(cost)
        assert (quick.metadata.vendor or None, quick.metadata.request_id or None) == (
            vendor_of(envelope),
            request_id(envelope),
        )
    return quick, full


def compile_nothing(patch: pytest.MonkeyPatch) -> None:
    """Have every model read in full, which what is compiled for it must not differ from."""
    patch.setattr(decode, "_MOST_FIELDS", 0)
    patch.setattr(decode, "_READERS", decode._Readers())
    patch.setattr(decode, "_METADATA", decode._READERS[Metadata])


def described(value: object) -> object:
    """Everything there is to a value, with its types, down to the last field."""
    match value:
        case Model() | Metadata() | Page():
            return (
                type(value),
                repr(value),
                {name: described(it) for name, it in attrs.asdict(value, recurse=False).items()},
            )
        case dict():
            return [(key, described(item)) for key, item in value.items()]
        case list() | tuple():
            return type(value), [described(item) for item in value]
    return type(value), repr(value)


def check(row: Capability[Any], body: bytes) -> list[object]:
    """Hold the two readings of an answer together; return the quick one of each parser."""
    found = []
    for loads in PARSERS:
        quick, full = outcomes(row, body, loads)
        if quick is not None:
            assert quick == full
            assert described(quick) == described(full)
            extras = [id(made.extra) for made in (quick if row.paged else [quick])]
            assert len(set(extras)) == len(extras), "each has its own"
        found.append(quick)
    return found


# --- what is plainly right -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
@pytest.mark.parametrize(
    "metadata", [METADATA, {}, None, METADATA | {"new": [1]}, {"vendor": "", "cost_usd": 0}], ids=repr
)
@pytest.mark.parametrize("promised", [True, False], ids=["promised", "documented"])
def test_a_documented_answer_is_read_quickly(row: Capability[Any], promised: bool, metadata: object) -> None:
    found = check(row, encoded(answer(row, promised=promised, metadata=metadata)))
    assert [quick is None for quick in found] == [row.id in IN_FULL] * len(PARSERS)


@pytest.mark.parametrize("row", [row for row in ROWS if row.id not in IN_FULL], ids=lambda row: row.id)
def test_unknown_fields_are_read_quickly_too(row: Capability[Any]) -> None:
    plain = answer(row)
    for one in plain["data"]["items"] if row.paged else [plain["data"]]:
        one["new"] = {"deep": [1]}
    assert None not in check(row, encoded(plain))


@pytest.mark.parametrize("row", [row for row in ROWS if row.paged], ids=lambda row: row.id)
@pytest.mark.parametrize("data", [{"items": []}, {"items": [], "next_cursor": ""}, {"items": [], "new": 1}], ids=repr)
def test_an_empty_page_is_read_quickly(row: Capability[Any], data: object) -> None:
    assert None not in check(row, encoded(answer(row) | {"data": data}))


@pytest.mark.parametrize("row", [row for row in ROWS if issubclass(row.returns, Ack)], ids=lambda row: row.id)
@pytest.mark.parametrize("data", [None, {}, {"ok": False}], ids=repr)
def test_a_bare_acknowledgement_is_read_quickly(row: Capability[Any], data: object) -> None:
    assert None not in check(row, encoded(answer(row) | {"data": data}))


@pytest.mark.parametrize("row", [row for row in ROWS if row.paged], ids=lambda row: row.id)
def test_items_of_many_shapes_are_read_quickly(row: Capability[Any]) -> None:
    full, promised = document(row.returns), document(row.returns, promised=True)
    items = [full, promised, full | {"new": 1}, promised, full, dict(reversed(full.items())), promised | {"new": 1}]
    assert None not in check(row, encoded(answer(row) | {"data": {"items": items}}))


# --- what is not ---------------------------------------------------------------------------------------------------

OTHER_NAMES = {
    field.name: field.metadata["read_from"]
    for row in ROWS
    for field in attrs.fields(row.returns)
    if "read_from" in field.metadata
}
WRITTEN = [  # as it stands in the body, where no Python value would be written so
    *("NaN", "-Infinity", "1e999", "-0", "-0.0", "1.0", "2.50", "1E5", "00", "0x1", "TRUE", "nul", "''", "{}", "[[]]"),
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" * 30, "0.1" + "0" * 30 + "1"),
    *(r'"\ud800"', r'"\ud83d\ude00"', r'"\u0000"', '{"a":1,"a":2}', '{"value":1}', '{"flags":{"a":{"value":2}}}'),
]
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, -1, 1.0, 2.5, -0.0, 2**63, 2**64, 10**30, 1e300, "", "true", "text", [], {}, [None]]
    + ["2026-01-02T03:04:05", "2026-01-02", "2026-13-01T00:00:00Z", "12:00", "NaN", "é", "\ud800", [[]], [{}], {"a": 1}]
    + [f"<{token}>" for token in WRITTEN]
)


def places(plain: object, before: Path = ()) -> list[Path]:
    """The way to every value in a document."""
    inside = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [place for key, value in inside for place in [(*before, key), *places(value, (*before, key))]]


def around(plain: Any, place: Path) -> Any:
    """The object or list that holds the value at a place."""
    return functools.reduce(lambda holder, step: holder[step], place[:-1], plain)


def spoil(draw: st.DrawFn, plain: dict[str, Any]) -> None:
    """Make one thing in a document other than it should be."""
    found = places(plain)
    place = draw(st.sampled_from(draw(st.sampled_from([[p for p in found if len(p) == 1] or found, found]))))
    holder, key = around(plain, place), place[-1]
    match draw(st.sampled_from(["odd", "odd", "drop", "nest", "rename", "both", "new"])), holder:
        case "odd", _:
            holder[key] = copy.deepcopy(draw(ODD))
        case "nest", _:
            holder[key] = [holder[key]]
        case "drop", _:
            del holder[key]
        case "rename", dict():
            holder[OTHER_NAMES.get(key, f"{key}_")] = holder.pop(key)
        case "both", dict():
            holder[OTHER_NAMES.get(key, f"{key}_")] = copy.deepcopy(draw(ODD))
        case "new", dict():
            holder[draw(st.sampled_from(["new", "extra", "metadata", "plain", "cls", "ok", "__class__"]))] = (
                copy.deepcopy(draw(ODD))
            )


def spoil_bytes(draw: st.DrawFn, body: bytes) -> bytes:
    """Write the same document differently, or break it."""
    place = draw(st.integers(0, len(body)))
    match draw(st.sampled_from(["cut", "latin", "bom", "space", "twice", "tail"])):
        case "cut":
            return body[:place]
        case "latin":
            return body[:place] + b"\xe9" + body[place:]
        case "bom":
            return b"\xef\xbb\xbf" + body
        case "space":
            return b" \r\n" + body.replace(b",", b" ,\t") + b"\n"
        case "twice":  # the same name again, whichever of the two wins
            names = re.findall(rb'"[a-z_]+":', body) or [b'"ok":']
            name = draw(st.sampled_from(names))
            return body.replace(
                name, name + encoded(draw(st.sampled_from([None, True, 5, "text", []]))) + b"," + name, 1
            )
    return body + b"{}"


@st.composite
def bodies(draw: st.DrawFn, row: Capability[Any]) -> bytes:
    """A documented answer with some of it spoilt."""
    plain = answer(row, promised=draw(st.booleans()), metadata=draw(st.sampled_from([METADATA, {}, None])))
    for _ in range(draw(st.integers(0, 3))):
        if plain:
            spoil(draw, plain)
    text = json.dumps(plain, separators=(",", ":"))
    body = re.sub(r'"<(.+?)>"', lambda found: json.loads(f'"{found[1]}"'), text).encode()
    return spoil_bytes(draw, body) if draw(st.integers(0, 4)) == 0 else body


@pytest.mark.parametrize("both", [False, True], ids=["one name", "both names"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_wrong_value_is_read_as_in_full_wherever_it_stands(row: Capability[Any], both: bool) -> None:
    kinds = [None, True, 1, 2.0, 2.5, "", "text", "2026-01-02T03:04:05", [], {}]
    for place in places(answer(row)):
        if (both and place[-1] not in OTHER_NAMES) or ("items" in place and len(place) > 2 and 1 not in place):
            continue
        for kind in kinds:
            plain = answer(row)
            holder = around(plain, place)
            if both:
                holder[OTHER_NAMES[place[-1]]] = holder[place[-1]]
            holder[place[-1]] = kind
            check(row, encoded(plain))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
@given(data=st.data())
def test_the_quick_reading_is_the_full_one_or_none(row: Capability[Any], data: st.DataObject) -> None:
    check(row, data.draw(bodies(row)))


@pytest.mark.parametrize("row", [ROWS[0], CAPABILITIES["db.project.list"]], ids=lambda row: row.id)
@pytest.mark.parametrize("ok", [False, "true", 1, 1.0, None, [True]], ids=repr)
def test_what_does_not_say_ok_is_left_to_the_full_reading(row: Capability[Any], ok: object) -> None:
    assert check(row, encoded(answer(row) | {"ok": ok})) == [None] * len(PARSERS)


@pytest.mark.parametrize("row", [ROWS[0], CAPABILITIES["db.project.list"]], ids=lambda row: row.id)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"ok"', b"{", b'{"ok":true}', b"\xff", b"[" * 100_000], ids=str)
def test_what_is_no_envelope_is_left_to_the_full_reading(row: Capability[Any], body: bytes) -> None:
    assert check(row, body) == [None] * len(PARSERS)


@pytest.mark.parametrize("row", [row for row in ROWS if row.paged], ids=lambda row: row.id)
def test_one_wrong_item_leaves_the_page_to_the_full_reading(row: Capability[Any]) -> None:
    one = document(row.returns)
    for wrong in (None, [], "x", {}, [one], one | {next(iter(one)): 5}):
        assert check(row, encoded(answer(row) | {"data": {"items": [one, one, wrong, one]}})) == [None] * len(PARSERS)


def test_an_error_beside_a_success_changes_nothing() -> None:
    row = CAPABILITIES["db.project.get"]
    assert None not in check(row, encoded(answer(row) | {"error": {"code": "NOT_FOUND"}}))
