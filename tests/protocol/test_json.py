"""The two codecs held against each other: what is read does not depend on which one is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infrai_async._protocol.json import loads_by_standard_library

orjson = pytest.importorskip("orjson", reason="there is nothing to compare the standard library with")

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)
NUMBERS = st.from_regex(r"[-+]?[0-9]{0,40}(\.[0-9]{0,40})?([eE][-+]?[0-9]{0,4})?", fullmatch=True)
BIG = st.integers(-(2**70), 2**70) | st.sampled_from([-(2**63) - 1, -(2**63), 2**63, 2**64 - 1, 2**64])
ESCAPES = st.from_regex(r'"(\\u[dD][89a-fA-F][0-9a-f]{2}|\\[a-z"\\/]|[ -~]){0,6}"', fullmatch=True)
SOUP = st.text(alphabet='{}[]",:\\ \t\n\r\x00\x0b\x7f\ufeff0123456789.-+eEtrufalsn\u20ac\U0001f600NI', max_size=40)


def outcome(loads: Callable[[bytes], object], body: bytes) -> Any:
    """What a codec makes of a body, types included: ``1``, ``1.0`` and ``True`` are equal, but not the same."""
    try:
        return repr(loads(body))
    except ValueError:
        return ValueError


def same(body: bytes) -> Any:
    ours = outcome(loads_by_standard_library, body)
    assert ours == outcome(orjson.loads, body), body
    return ours


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 0, 2]))
def test_documents_are_read_alike(document: object, escaped: bool, indent: int | None) -> None:
    body = json.dumps(document, ensure_ascii=escaped, indent=indent).encode()
    assert same(body) is not ValueError


@given(NUMBERS | BIG.map(str))
@example("18446744073709551616")
@example("-9223372036854775809")
@example("-0")
@example("-0.0")
@example("1e400")
@example("1" * 400)
@example("1" * 5000)
@example("0.1e-400")
def test_numbers_are_read_alike(text: str) -> None:
    same(f'{{"a": [{text}]}}'.encode())


@given(ESCAPES)
def test_escapes_are_read_alike(text: str) -> None:
    same(text.encode())


@settings(max_examples=500)
@given(SOUP)
@example("")
@example("\ufeff{}")
@example('{"a": 1, "a": 2}')
@example("[NaN]")
@example("[-Infinity]")
@example("{} {}")
@example("[1,]")
@example("\x0b1")
def test_what_is_hardly_json_is_read_or_refused_alike(text: str) -> None:
    same(text.encode())


@given(DOCUMENTS, st.data())
def test_what_was_cut_off_or_changed_is_read_or_refused_alike(document: object, data: st.DataObject) -> None:
    text = json.dumps(document, ensure_ascii=False)
    at = data.draw(st.integers(0, len(text)))
    same((text[:at] + data.draw(SOUP) + text[at + data.draw(st.integers(0, 3)) :]).encode())


@given(st.binary(max_size=40))
def test_bytes_are_read_or_refused_alike(body: bytes) -> None:
    same(body)
    same(b'"' + body + b'"')


@pytest.mark.parametrize("depth", [10, 400])
def test_what_is_nested_within_reason_is_read_alike(depth: int) -> None:
    assert same(b"[" * depth + b"]" * depth) is not ValueError


def test_what_is_nested_beyond_reason_is_refused_alike() -> None:
    assert same(b"[" * 200_000 + b"]" * 200_000) is ValueError
