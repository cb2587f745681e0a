"""Parsing JSON: orjson where it is installed (extra ``speed``), else the standard library, with the same result."""

from __future__ import annotations

import json
from typing import NoReturn

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def loads(body: bytes) -> object:
    """Parse a JSON document.

    Raises:
        ValueError: it is none, or not UTF-8, or nested beyond reason.
    """
    if orjson is not None:
        return orjson.loads(body)
    try:
        return json.loads(body.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
