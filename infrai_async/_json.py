"""Parsing JSON: orjson where it is installed (extra ``speed``), else the standard library, with the same result."""

from __future__ import annotations

import json
import math
from typing import NoReturn

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


def loads(body: bytes) -> object:
    """Parse a JSON document.

    Raises:
        ValueError: it is none, or not UTF-8, or nested beyond reason.
    """
    if orjson is not None:
        return orjson.loads(body)
    text = body.decode()
    try:
        document: object = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # refuses half of a surrogate pair, as orjson does
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return document
