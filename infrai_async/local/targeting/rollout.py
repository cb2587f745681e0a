"""Percentage roll-outs: who is inside, and which variant it gets; docs/flags.md has the formula for other languages.

The place of a targeting key (the context's value of the sticky unit) is between 0 and 100,000: ``first 8 bytes of
sha256(salt + NUL + targeting_key), big-endian, * 100,000 >> 64``. The key is inside when its place is below
``round(percentage * 1000)``, a half going to the even number. Which variant it gets follows from its place under the
salt ``salt + NUL + "variant"``: the first variant whose weight, added to those before it, times 100,000 exceeds the
place times all weights, in double precision. So the answer depends on nothing but its inputs, and a growing percentage
takes nobody out, nor to another variant. For the salt ``v1``:

    unit        place   place for the variant
    ada         61903   64270
    user-1      90432   5887
    名前        65466   11647
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from infrai_async.capabilities import FLAG_ROLLOUT
from infrai_async.local.targeting.rules import EvaluationContext, wrong
from infrai_async.models import JSON

FIELDS: Final = ("percentage", "salt", "sticky_unit", "variants")
_PLACES: Final = 100_000
_MOST_VARIANTS: Final = 100
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {"bool": (bool,), "string": (str,), "number": (int, float)}


def type_of(value: JSON) -> str:
    """Return the type of a flag that has this value."""
    return next((name for name, types in _TYPES.items() if isinstance(value, types)), "json")


def check_value(place: str, kind: str, value: JSON) -> None:
    """Hold a value to a flag's type.

    Raises:
        RequestRefused: it is of another; a boolean is no number.
    """
    if kind != "json" and type_of(value) != kind:
        raise wrong(place, f"a {kind}, as the flag's type says")


def place(salt: str, targeting_key: str) -> int:
    """Return a unit's place, from 0 up to and without 100,000."""
    digest = hashlib.sha256(f"{salt}\0{targeting_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * _PLACES >> 64


def targeting_key_of(rollout: Mapping[str, Any], context: EvaluationContext) -> str | None:
    """Return what a roll-out draws for whoever asks: a text or a whole number, and not an empty one."""
    match context.get(rollout["sticky_unit"]):
        case str() as text:
            return text or None
        case bool():
            return None
        case int() | float() as number if number == number // 1:
            return str(int(number))
    return None


def is_inside(rollout: Mapping[str, Any], context: EvaluationContext) -> bool:
    """Say whether somebody is inside; whoever has no unit is only where all are."""
    below: int = round(rollout["percentage"] * 1000)
    targeting_key = targeting_key_of(rollout, context)
    return below >= _PLACES if targeting_key is None else place(rollout["salt"], targeting_key) < below


def pick(rollout: Mapping[str, Any], context: EvaluationContext) -> Mapping[str, Any]:
    """Return the variant that somebody gets who is inside."""
    variants = rollout["variants"]
    sums = [*accumulate(map(_weight_of, variants))]
    at = place(f"{rollout['salt']}\0variant", targeting_key_of(rollout, context) or "") * sums[-1]
    return next(variant for variant, sum in zip(variants, sums, strict=True) if at < sum * _PLACES)


def name_of(variant: Mapping[str, Any]) -> str:
    """Return a variant's name, which goes by two names itself."""
    return str(variant.get("key", variant.get("name")))


def read_rollout(where: str, given: object, kind: str) -> dict[str, Any]:
    """Return a roll-out with all that it consists of; it is held to what ``flags.rollout`` takes.

    Raises:
        RequestRefused: something in it is wrong, or a variant has a value of another type than the flag.
    """
    if not isinstance(given, dict):
        raise wrong(where, "an object")
    for name in given:
        if name not in FIELDS:
            raise wrong(f"{where}.{name[:40]}", f"absent; what there is: {', '.join(FIELDS)}")
    whole = {"sticky_unit": "user_id", "variants": []} | {
        name: given[name] for name in FIELDS if given.get(name) is not None
    }
    for name in FIELDS:
        param = FLAG_ROLLOUT.params[name]
        wanted = param.mismatch(whole[name]) if name in whole else "given" if param.required else None
        if wanted is not None:
            raise wrong(f"{where}.{name}", wanted)
    _check_variants(f"{where}.variants", whole["variants"], kind)
    return whole


def _check_variants(where: str, variants: Sequence[Mapping[str, Any]], kind: str) -> None:
    if len(variants) > _MOST_VARIANTS:
        raise wrong(where, f"at most {_MOST_VARIANTS} variants")
    for number, variant in enumerate(variants):
        one = f"{where}[{number}]"
        if not isinstance(variant.get("key", variant.get("name")), str):
            raise wrong(f"{one}.key", "a string")
        if "value" not in variant:
            raise wrong(f"{one}.value", "given")
        check_value(f"{one}.value", kind, variant["value"])
        if not _is_weight(variant.get("weight", 1)):
            raise wrong(f"{one}.weight", "a number of 0 or more")
    if len({name_of(variant) for variant in variants}) < len(variants):
        raise wrong(where, "variants of different names")
    if variants and not any(map(_weight_of, variants)):
        raise wrong(where, "variants of which one at least has a weight above 0")


def _is_weight(weight: object) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < 2**53


def _weight_of(variant: Mapping[str, Any]) -> float:
    return float(variant.get("weight", 1))
