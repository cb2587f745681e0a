"""The envelope around every response, and its metadata about the call (CONTRACT.md 1.2, 1.3, 1.6)."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import attrs

from infrai_async.models import JSON

VENDOR = "local"
_as_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_MAY_BE_SMALL: Final = re.compile(r"[0-9]e-[0-9]").search
_STRING_OR_SMALL: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[0-9.]+e-[0-9]+)', re.DOTALL)
NANO = 1_000_000_000
"""Nano-dollars per dollar; amounts of money are stored in nano-dollars."""


def new_request_id(milliseconds: int | None = None) -> str:
    """Return a UUID of version 7 (RFC 9562): 48 bits of Unix time in milliseconds, then random bits."""
    moment = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    number = (moment & (1 << 48) - 1) << 80 | random.getrandbits(80)  # an id is no secret
    number = number & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(uuid.UUID(int=number))


def dollars(nano: int) -> int | float:
    """Return an amount in dollars as a JSON number whose shortest decimal form is exact (up to 15 digits)."""
    return nano // NANO if nano % NANO == 0 else nano / NANO


@attrs.frozen
class CallMetadata:
    """The envelope's ``metadata``; created when the request arrives and completed when the response is sent."""

    request_id: str = attrs.field(factory=new_request_id)
    started: float = attrs.field(factory=time.perf_counter)

    def to_dict(self, cost: int = 0) -> dict[str, JSON]:
        """Return the JSON form; ``cost`` is in nano-dollars."""
        return {
            "cost_usd": dollars(cost),
            "latency_ms": round((time.perf_counter() - self.started) * 1000, 3),
            "vendor": VENDOR,
            "cache_hit": False,
            "request_id": self.request_id,
        }


def headers_of(metadata: Mapping[str, JSON]) -> dict[str, str]:
    """Return ``metadata`` in the form of response headers."""
    return {
        "X-Infrai-Cost-Usd": encode(metadata["cost_usd"]).decode(),
        "X-Infrai-Vendor": str(metadata["vendor"]),
        "X-Infrai-Latency-Ms": json.dumps(metadata["latency_ms"]),
        "X-Infrai-Request-Id": str(metadata["request_id"]),
        "X-Request-Id": str(metadata["request_id"]),
    }


def encode(document: JSON) -> bytes:
    """Encode a document as compact JSON, in which small numbers have no exponent: some programs scan the text (D32)."""
    text = _as_json(document)
    if _MAY_BE_SMALL(text):
        text = _STRING_OR_SMALL.sub(lambda found: found[0] if found[1] is None else f"{Decimal(found[1]):f}", text)
    return text.encode()


def success(data: JSON, metadata: Mapping[str, JSON]) -> bytes:
    """Return the encoded envelope of a successful response."""
    # In two parts, because the price of most calls is a small number, and the data may be long.
    return b'{"ok":true,"data":%b,"error":null,"metadata":%b}' % (encode(data), encode(dict(metadata)))


def failure(error: Mapping[str, JSON], metadata: Mapping[str, JSON]) -> bytes:
    """Return the encoded envelope of an error."""
    return b'{"ok":false,"data":null,"error":%b,"metadata":%b}' % (encode(dict(error)), encode(dict(metadata)))
