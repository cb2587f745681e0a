"""What a model holds can be printed, copied, pickled and converted, however deeply the service nests it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from types import NoneType
from typing import Any, get_args, get_origin

import attrs
import pytest

from infrai_async._protocol import json as parsers
from infrai_async._protocol.decode import PAGE, VALUE
from infrai_async._protocol.response import Response, api_error_of, open_envelope
from infrai_async.capabilities import CAPABILITIES, Capability
from infrai_async.errors import APIError, DecodeError
from infrai_async.models import FlagValues

PARSERS_BY_NAME = {"the installed one": parsers.loads, "the standard library": parsers.loads_by_standard_library}
PLAIN: dict[Any, Any] = {str: "a", bool: True, int: 1, float: 0.5, Decimal: 1, datetime: "2026-01-02T03:04:05Z"}


def nested(levels: int) -> Any:
    value: Any = "x"
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


def sample(kind: Any, levels: int) -> Any:
    """A value of an annotation, of that many levels wherever it is plain JSON."""
    inner = [arg for arg in get_args(kind) if arg is not NoneType]
    match get_origin(kind):
        case None:
            return document(kind, levels) if attrs.has(kind) else PLAIN[kind] if kind in PLAIN else nested(levels)
        case origin if origin is tuple:
            return [sample(inner[0], levels)]
        case origin if origin is Mapping:
            return {"a": sample(inner[1], levels)}
    return sample(inner[0], levels)


def document(cls: type[Any], levels: int) -> dict[str, Any]:
    if cls is FlagValues:
        return {"a": nested(levels)}
    attrs.resolve_types(cls)
    known = [field for field in attrs.fields(cls) if field.name not in ("extra", "metadata")]
    return {field.name: sample(field.type, levels) for field in known} | {"new": nested(levels)}


def read(row: Capability[Any], levels: int) -> Any:
    one = document(row.returns, levels)
    data = {"items": [one, one], "next_cursor": None} if row.paged else one
    envelope = {"ok": True, "data": data, "error": None, "metadata": {"request_id": "r", "new": nested(levels)}}
    body = json.dumps(one if row.bare else envelope).encode()
    reader = PAGE if row.paged else VALUE
    quick = reader.quick(row, body)
    return reader.full(row, open_envelope(Response(200, {}, body))) if quick is None else quick


def uses_of(value: Any) -> list[Callable[[], object]]:
    return [
        lambda: repr(value),
        lambda: str(value),
        lambda: copy.deepcopy(value) == value,
        lambda: pickle.loads(pickle.dumps(value)) == value,
        *(getattr(value, name) for name in ("_repr_html_", "to_dict") if hasattr(value, name)),
    ]


def called_from(frames: int, use: Callable[[], object]) -> object:
    return use() if frames == 0 else called_from(frames - 1, use)


@pytest.fixture(params=PARSERS_BY_NAME)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "loads", PARSERS_BY_NAME[request.param])


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("row", CAPABILITIES.values(), ids=lambda row: row.id)
def test_the_deepest_answer_can_be_used_in_every_way(row: Capability[Any]) -> None:
    made = read(row, parsers.NESTING)
    for value in (made, made.metadata, *(made.items if row.paged else ())):
        for use in uses_of(value):
            assert called_from(200, use) is not False


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("levels", [101, 500, 990, 1020, 5000])
@pytest.mark.parametrize("row", CAPABILITIES.values(), ids=lambda row: row.id)
def test_one_level_more_is_a_decode_error(row: Capability[Any], levels: int) -> None:
    with pytest.raises(DecodeError):
        read(row, levels) if levels < 500 else read_text(row, levels)


def read_text(row: Capability[Any], levels: int) -> Any:
    """As ``read``; but Python itself cannot write what is nested so deeply."""
    one = {**document(row.returns, 1), "new": "HERE"}
    data = {"items": [one], "next_cursor": None} if row.paged else one
    text = json.dumps(one if row.bare else {"ok": True, "data": data, "error": None, "metadata": {}})
    body = text.replace('"HERE"', "[" * levels + "]" * levels).encode()
    reader = PAGE if row.paged else VALUE
    quick = reader.quick(row, body)
    return reader.full(row, open_envelope(Response(200, {}, body))) if quick is None else quick


def refused(status: int, levels: int) -> APIError:
    text = '{"ok":false,"error":{"code":"X","message":"m","details":%s}}' % ("[" * levels + "]" * levels)
    response = Response(status, {}, text.encode())
    return api_error_of(response, open_envelope(response), None)


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_details_of_errors_are_read_alike_by_both_parsers(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for loads in PARSERS_BY_NAME.values():
        monkeypatch.setattr(parsers, "loads", loads)
        found.append([repr(refused(status, levels)) for levels in (50, 100, 500, 990, 1000, 1020, 1030, 5000)])
    assert found[0] == found[1]
    assert ["X" in text for text in found[0]] == [True, True, *[False] * 6]
