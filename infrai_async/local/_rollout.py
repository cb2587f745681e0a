"""What a flag evaluates to (CONTRACT.md D27), and who is inside a percentage roll-out.

A unit's place between 0 and 100,000 is ``first 8 bytes of sha256(salt + NUL + unit), big-endian, * 100,000 >> 64``; it
is inside when that is below ``round(percentage * 1000)``. Which variant it gets follows from the same place under the
salt ``salt + NUL + "variant"``. So the answer is sticky, and anybody can compute it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from infrai_async.local._refusal import invalid, to_come
from infrai_async.models import JSON

_PLACES: Final = 100_000


@attrs.frozen(kw_only=True)
class Verdict:
    """What a flag is for one who asks, and why."""

    value: JSON
    on: bool
    reason: str
    variant: str | None = None


def evaluate(flag: Mapping[str, Any], user_id: str | None, context: Mapping[str, JSON]) -> Verdict:
    """Evaluate a flag.

    Raises:
        Refusal: it has targeting rules, which the gateway cannot evaluate yet.
    """
    default, is_bool = flag["default_value"], flag["type"] == "bool"
    if not flag["enabled"]:
        return Verdict(value=default, on=is_bool and default is True, reason="disabled")
    if flag["rules"]:
        raise to_come("targeting rules are")
    if flag["rollout"]:
        return _roll_out(flag, flag["rollout"], user_id, context)
    return Verdict(value=True if is_bool else default, on=True, reason="enabled")


def _roll_out(
    flag: Mapping[str, Any], rollout: Mapping[str, Any], user_id: str | None, context: Mapping[str, JSON]
) -> Verdict:
    default, is_bool = flag["default_value"], flag["type"] == "bool"
    unit = _unit(rollout["sticky_unit"], user_id, context)
    if not is_inside(rollout, unit):
        return Verdict(value=default, on=is_bool and default is True, reason="outside_rollout")
    if not rollout.get("variants"):
        return Verdict(value=True if is_bool else default, on=True, reason="in_rollout")
    variant = _pick(rollout["variants"], place(rollout["salt"] + "\0variant", unit or ""))
    value = variant["value"]
    on = value is True if is_bool else True
    return Verdict(value=value, on=on, reason="in_rollout", variant=_name_of(variant))


def place(salt: str, unit: str) -> int:
    """Return a unit's place, from 0 up to and without 100,000."""
    digest = hashlib.sha256(f"{salt}\0{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * _PLACES >> 64


def is_inside(rollout: Mapping[str, Any], unit: str | None) -> bool:
    """Say whether a unit is inside; whoever has none is only where all are."""
    below: int = round(rollout["percentage"] * 1000)
    return below >= _PLACES if unit is None else place(rollout["salt"], unit) < below


def _unit(kind: str, user_id: str | None, context: Mapping[str, JSON]) -> str | None:
    if kind == "user_id" and user_id is not None:
        return user_id
    value = context.get(kind)
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)


def _weight_of(variant: Mapping[str, Any]) -> float:
    return float(variant.get("weight", 1))


def _name_of(variant: Mapping[str, Any]) -> str:
    return str(variant.get("key", variant.get("name")))


def _pick(variants: Sequence[Mapping[str, Any]], at: int) -> Mapping[str, Any]:
    left = at * sum(map(_weight_of, variants)) / _PLACES
    for variant in variants:
        left -= _weight_of(variant)
        if left < 0:
            return variant
    return variants[-1]


def check_variants(variants: Sequence[Mapping[str, Any]]) -> None:
    """Hold variants to ``{key or name, value, weight}``.

    Raises:
        Refusal: one of them cannot be served.
    """
    for variant in variants:
        weight = variant.get("weight", 1)
        named = isinstance(variant.get("key", variant.get("name")), str)
        weighed = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < 2**53
        if not (named and weighed and "value" in variant):
            raise invalid("a variant is {key, value, weight}", variants="a key, a value and a weight of 0 or more")
    if variants and not any(map(_weight_of, variants)):
        raise invalid("one variant at least has to weigh more than 0", variants="a weight above 0")
