"""Parsing JSON: orjson where it is installed (extra ``speed``), else the standard library, with the same result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

NESTING: Final = 100
"""The most levels of lists and objects in a value that a model or an argument holds.

Far beyond it, functions of Python that go through all levels (``repr``, ``copy.deepcopy``, ``pickle``) fail; which of
them depends on the version. Both parsers accept more.
"""
_LONGEST = 20  # the most characters of a 64-bit integer


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


def _integer(text: str) -> int | float:
    """Parse an integer; one that does not fit into 64 bits becomes a float, as in most JSON parsers."""
    if len(text) > _LONGEST:
        return _finite(text)
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, parse_int=_integer).decode


def loads_by_standard_library(body: bytes) -> object:
    """Parse a JSON document.

    Raises:
        ValueError: ``body`` is not JSON, is not UTF-8, or is nested too deeply.
    """
    text = body.decode()
    try:
        document: object = _decode(text)
        if "\\" in text and "\\u" in text:  # the first check is fast and nearly always decides
            json.dumps(document, ensure_ascii=False).encode()  # raises on half of a surrogate pair, as orjson does
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return document


def _loads_at_first(body: bytes) -> object:
    global loads
    try:
        from orjson import loads
    except ImportError:
        loads = loads_by_standard_library
    return loads(body)


loads: Callable[[bytes], object] = _loads_at_first  # creating a client must not import orjson yet


def is_too_deep(value: object, most: int = NESTING) -> bool:
    """Return whether plain JSON has more than ``most`` levels of lists and objects."""
    if not isinstance(value, list | dict):  # nearly always
        return False
    level: list[object] = [value]
    for _ in range(most + 1):
        level = [item for each in level if isinstance(each, list | dict) for item in _items(each)]
        if not level:
            return False
    return True


def _items(container: list[object] | dict[str, object]) -> Iterable[object]:
    """Return the values of a list or an object; an empty one counts as a level too."""
    return (container.values() if isinstance(container, dict) else container) or (None,)
