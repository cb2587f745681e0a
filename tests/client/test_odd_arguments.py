"""Whatever number or object an argument is, it is taken or refused by name, before anything is sent."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from infrai_async import (
    AsyncInfrai,
    ConfigurationError,
    Infrai,
    InvalidArgument,
    RetryPolicy,
    TransportError,
    fan_out,
)

pytestmark = pytest.mark.anyio
NOWHERE = "http://127.0.0.1:9"
ODD: dict[str, Any] = {
    "more than a float holds": 10**400,
    "more digits than Python writes": 10**5000,
    "far below zero": -(10**400),
    "-1": -1,
    "not a number": math.nan,
    "infinity": math.inf,
    "the least float": 5e-324,
    "beyond 64 bits": 2**64,
    "the most of an index": sys.maxsize,
    "true": True,
    "false": False,
    "nothing": None,
    "digits": "5",
    "empty": "",
    "half a surrogate pair": "\ud800",
    "bytes": b"1",
    "a list": [],
    "a dict": {},
    "a decimal that is none": Decimal("NaN"),
    "a decimal that raises": Decimal("sNaN"),
    "a huge decimal": Decimal("1e999999"),
    "a tiny decimal": Decimal("1e-999999"),
    "a huge duration": timedelta.max,
    "a negative duration": timedelta.min,
    "no duration": timedelta(0),
    "a complex number": 1j,
    "an object": object(),
}
Use = Callable[[AsyncInfrai, Infrai, Any], Any]


def construct(name: str) -> Use:
    def use(_: AsyncInfrai, __: Infrai, value: Any) -> None:
        options = {"api_key": "k", "base_url": NOWHERE, name: value}
        AsyncInfrai(**options)
        Infrai(**options)

    return use


def view(name: str) -> Use:
    return lambda one, other, value: (one.with_options(**{name: value}), other.with_options(**{name: value}))[:0]


def policy(name: str) -> Use:
    def use(_: AsyncInfrai, __: Infrai, value: Any) -> None:
        made: Any = RetryPolicy(**{name: value})
        for failures in (1, 3, 10**6):
            assert 0 <= made.pause(failures, 0.999) < math.inf
        assert made.believe(math.inf) < math.inf

    return use


def listing(name: str) -> Use:
    return lambda one, other, value: (
        one.db.project.list(**{name: value}),
        other.db.project.list(**{name: value}),
    )[:0]


USES: dict[str, Use] = {
    **{name: construct(name) for name in ("timeout", "max_concurrency", "retry", "headers", "ssl", "on_event")},
    **{f"{name} of a view": view(name) for name in ("timeout", "retry", "headers", "budget", "deadline", "operation")},
    **{name: policy(name) for name in ("max_attempts", "initial", "maximum", "longest_pause")},
    **{name: listing(name) for name in ("limit", "cursor", "max_items", "prefetch")},
    "usd": lambda one, _, value: repr(one.budget(value)) and None,
    "seconds": lambda one, _, value: one.deadline(value).__enter__().__exit__(None, None, None),
    "name": lambda one, _, value: repr(one.operation(value)) and None,
    "collect": lambda one, _, value: one.db.project.list().collect(max_items=value),
    "concurrency": lambda one, _, value: repr(fan_out(one.db.project.list(), lambda _: [], concurrency=value)) and None,
    "inventory": lambda one, _, value: repr(one.db.inventory(concurrency=value)) and None,
    "expires_seconds": lambda one, _, value: one.storage.object.presign("b", "k", expires_seconds=value),
    "max_bytes": lambda one, _, value: one.storage.object.presign("b", "k", max_bytes=value),
    "percentage": lambda one, _, value: one.flags.rollout(
        "f", percentage=value, salt="s", sticky_unit="user_id", version=1
    ),
    "version": lambda one, _, value: one.flags.toggle("f", enabled=True, version=value),
    "default_value": lambda one, _, value: one.flags.set("f", type="json", default_value=value),
    "amount_usd": lambda one, _, value: one.account.topup(amount_usd=value),
    "idempotency_key": lambda one, _, value: one.db.project.create(name="x", idempotency_key=value),
    "capability": lambda one, _, value: one.call(value),
    "arguments": lambda one, _, value: one.call("db.project.get", value),
    "grace": lambda _, __, value: AsyncInfrai("k", base_url=NOWHERE).aclose(value),
    "blocking grace": lambda _, __, value: Infrai("k", base_url=NOWHERE).close(value),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_an_odd_value_is_taken_or_refused_by_name(use: Use) -> None:
    wrong = {}
    async with AsyncInfrai("k", base_url=NOWHERE, retry=RetryPolicy.none()) as one:
        other = Infrai("k", base_url=NOWHERE)
        for label, value in ODD.items():
            try:
                result = use(one, other, value)
                if hasattr(result, "__await__"):
                    await result
            except (InvalidArgument, ConfigurationError) as refused:
                if not refused.message or len(refused.message) > 700:
                    wrong[label] = refused.message
            except TransportError:
                pass  # it was taken, and nobody answers
            except Exception as error:
                wrong[label] = repr(error)
        other.close()
    assert wrong == {}


@pytest.mark.parametrize(
    "name",
    [
        "Accept-Encoding", "Connection", "content-encoding", "CONTENT-LENGTH", "Expect", "Host", "HTTP2-Settings",
        "If-Match", "If-None-Match", "If-Modified-Since", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection",
        "Range", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
    ],
)  # fmt: skip
def test_a_header_that_changes_the_protocol_is_refused_by_name(name: str) -> None:
    for make in (AsyncInfrai, Infrai):
        with pytest.raises(InvalidArgument, match=name):
            make("k", base_url=NOWHERE, headers={name: "x"})
    with pytest.raises(InvalidArgument, match=name):
        AsyncInfrai("k", base_url=NOWHERE).with_options(headers={name: "x"})
