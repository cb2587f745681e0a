"""Percentage rollouts: which targeting keys are inside, and which variant each of them gets.

The place of a targeting key (the value of the sticky unit in the evaluation context) is an integer from 0 to 99,999:
``first 8 bytes of sha256(salt + NUL + targeting_key), big-endian, * 100,000 >> 64``. The key is inside the rollout if
its place is below ``round(percentage * 1000)``, with halves rounded to even. The variant follows from the key's place
under the salt ``salt + NUL + "variant"``: it is the first variant for which the sum of the weights up to and including
it, times 100,000, exceeds the place times the sum of all weights, in double precision.

The result depends only on these inputs. A growing percentage therefore never removes a key from the rollout or moves it
to another variant. docs/flags.md gives the formula for other languages. For the salt ``v1``:

    key         place   place for the variant
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
    """Return the flag type to which a value belongs."""
    return next((name for name, types in _TYPES.items() if isinstance(value, types)), "json")


def check_value(place: str, kind: str, value: JSON) -> None:
    """Check a value against a flag's type.

    Raises:
        RequestRefused: 400, if it has another type; a boolean is not a number.
    """
    if kind != "json" and type_of(value) != kind:
        raise wrong(place, f"a {kind}, the type of the flag")


def place(salt: str, targeting_key: str) -> int:
    """Return the place of a targeting key, from 0 to 99,999."""
    digest = hashlib.sha256(f"{salt}\0{targeting_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * _PLACES >> 64


def targeting_key_of(rollout: Mapping[str, Any], context: EvaluationContext) -> str | None:
    """Return the targeting key of a context as text: a nonempty string or a whole number; None without one."""
    match context.get(rollout["sticky_unit"]):
        case str() as text:
            return text or None
        case bool():
            return None
        case int() | float() as number if number == number // 1:
            return str(int(number))
    return None


def is_inside(rollout: Mapping[str, Any], context: EvaluationContext) -> bool:
    """Return whether a context is inside a rollout; without a targeting key, only at 100 percent."""
    below: int = round(rollout["percentage"] * 1000)
    targeting_key = targeting_key_of(rollout, context)
    return below >= _PLACES if targeting_key is None else place(rollout["salt"], targeting_key) < below


def pick(rollout: Mapping[str, Any], context: EvaluationContext) -> Mapping[str, Any]:
    """Return the variant for a context that is inside the rollout."""
    variants = rollout["variants"]
    sums = [*accumulate(map(_weight_of, variants))]
    at = place(f"{rollout['salt']}\0variant", targeting_key_of(rollout, context) or "") * sums[-1]
    return next(variant for variant, sum in zip(variants, sums, strict=True) if at < sum * _PLACES)


def name_of(variant: Mapping[str, Any]) -> str:
    """Return a variant's name, given as ``key`` or as ``name``."""
    return str(variant.get("key", variant.get("name")))


def read_rollout(where: str, given: object, kind: str) -> dict[str, Any]:
    """Validate a rollout like the parameters of ``flags.rollout``, and return it with its defaults filled in.

    Raises:
        RequestRefused: 400, if a field is invalid or a variant's value does not have the type of the flag.
    """
    if not isinstance(given, dict):
        raise wrong(where, "an object")
    for name in given:
        if name not in FIELDS:
            raise wrong(f"{where}.{name[:40]}", f"absent; the known fields are {', '.join(FIELDS)}")
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
        raise wrong(where, "variants with distinct names")
    if variants and not any(map(_weight_of, variants)):
        raise wrong(where, "variants of which at least one has a weight above 0")


def _is_weight(weight: object) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < 2**53


def _weight_of(variant: Mapping[str, Any]) -> float:
    return float(variant.get("weight", 1))
