"""Parsing JSON: orjson where it is installed (extra ``speed``), else the standard library, with the same result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import NoReturn

_LONGEST = 20  # characters: of an integer of 64 bits


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


def _integer(text: str) -> int | float:
    """Read what more than 64 bits hold as a float, as most readers of JSON do."""
    if len(text) > _LONGEST:
        return _finite(text)
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, parse_int=_integer).decode


def loads_by_standard_library(body: bytes) -> object:
    """Parse a JSON document.

    Raises:
        ValueError: it is none, or not UTF-8, or nested beyond reason.
    """
    text = body.decode()
    try:
        document: object = _decode(text)
        if "\\" in text and "\\u" in text:  # the first is quick, and nearly always enough
            json.dumps(document, ensure_ascii=False).encode()  # refuses half of a surrogate pair, as orjson does
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


loads: Callable[[bytes], object] = _loads_at_first  # who only builds a client need not load orjson
