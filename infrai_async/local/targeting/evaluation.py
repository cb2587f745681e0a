"""Evaluate a flag for an evaluation context (CONTRACT.md D27); docs/flags.md describes the rules in full.

An archived or disabled flag has its default value. Otherwise the first rule that matches the context decides, then the
rollout; a flag with neither is on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import attrs

from infrai_async.local._errors import RequestRefused
from infrai_async.local.targeting.rollout import check_value, is_inside, name_of, pick, read_rollout
from infrai_async.local.targeting.rules import Condition, EvaluationContext, RuleParser, wrong
from infrai_async.models import JSON

_SHORT: Final = 4000
"""Rules longer than this, in characters, are parsed at each evaluation; caching them could exhaust memory."""


@attrs.frozen(kw_only=True)
class Evaluation:
    """The value of a flag for one evaluation context, and the reason for it."""

    value: JSON
    on: bool
    reason: str
    variant: str | None = None


@attrs.frozen(kw_only=True)
class _Rule:
    """A condition and what it serves: a value, a variant of the flag, or a variant of the rule's own rollout."""

    holds: Condition
    serve: JSON
    variant: Mapping[str, Any] | None
    rollout: Mapping[str, Any] | None

    def is_for(self, context: EvaluationContext) -> bool:
        return self.holds(context) and (self.rollout is None or is_inside(self.rollout, context))

    def served(self, context: EvaluationContext) -> Mapping[str, Any] | None:
        return pick(self.rollout, context) if self.rollout and self.rollout["variants"] else self.variant


def checked(flag: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a definition against its type and return it with the rollout's defaults filled in.

    Raises:
        RequestRefused: 400, naming the field and what it must be.
    """
    kind, default = flag["type"], flag["default_value"]
    if default is not None or kind == "bool":
        check_value("default_value", kind, default)
    rollout = read_rollout("rollout", flag["rollout"], kind) if flag["rollout"] else None
    _read_rules(kind, flag["rules"], rollout["variants"] if rollout else [])
    return {**flag, "rollout": rollout}


def evaluate(flag: Mapping[str, Any], user_id: str | None, context: Mapping[str, JSON]) -> Evaluation:
    """Evaluate a definition that has passed ``checked``.

    Raises:
        RequestRefused: 503, if the definition was accepted by a gateway that supports more than this one does, such as
            ``matches``, which needs RE2.
    """
    if flag["archived"]:
        return _default(flag, "archived")
    if not flag["enabled"]:
        return _default(flag, "disabled")
    context = dict(context) if user_id is None else {**context, "user_id": user_id}
    rule = next((rule for rule in _usable_rules(flag) if rule.is_for(context)), None)
    if rule is not None:
        variant = rule.served(context)
        return _serve(flag, rule.serve, "rule_match") if variant is None else _arm(flag, variant, "rule_match")
    return _roll_out(flag, flag["rollout"], context) if flag["rollout"] else _on(flag, "enabled")


def _roll_out(flag: Mapping[str, Any], rollout: Mapping[str, Any], context: EvaluationContext) -> Evaluation:
    if not is_inside(rollout, context):
        return _default(flag, "outside_rollout")
    return _arm(flag, pick(rollout, context), "in_rollout") if rollout["variants"] else _on(flag, "in_rollout")


def _default(flag: Mapping[str, Any], reason: str) -> Evaluation:
    default = flag["default_value"]
    return Evaluation(value=default, on=flag["type"] == "bool" and default is True, reason=reason)


def _on(flag: Mapping[str, Any], reason: str) -> Evaluation:
    return _serve(flag, True if flag["type"] == "bool" else flag["default_value"], reason)


def _arm(flag: Mapping[str, Any], variant: Mapping[str, Any], reason: str) -> Evaluation:
    return attrs.evolve(_serve(flag, variant["value"], reason), variant=name_of(variant))


def _serve(flag: Mapping[str, Any], value: JSON, reason: str) -> Evaluation:
    return Evaluation(value=value, on=value is True if flag["type"] == "bool" else True, reason=reason)


def _usable_rules(flag: Mapping[str, Any]) -> Sequence[_Rule]:
    """Return a flag's parsed rules, from a cache: parsing them takes far longer than evaluating them."""
    variants = flag["rollout"]["variants"] if flag["rollout"] else []
    text = json.dumps([flag["type"], flag["rules"], variants])
    try:
        return _remembered(text) if len(text) < _SHORT else _remembered.__wrapped__(text)
    except RequestRefused as refusal:
        message = f"the flag's rules cannot be evaluated here: {refusal.message}"
        raise RequestRefused(503, "VENDOR_UNAVAILABLE", message, retryable=False) from None


@lru_cache(maxsize=2048)
def _remembered(text: str) -> Sequence[_Rule]:
    return _read_rules(*json.loads(text))


def _read_rules(
    kind: str, rules: Sequence[Mapping[str, Any]], variants: Sequence[Mapping[str, Any]]
) -> Sequence[_Rule]:
    reader = RuleParser()
    return [_read_rule(reader, f"rules[{number}]", rule, kind, variants) for number, rule in enumerate(rules)]


def _read_rule(
    reader: RuleParser, place: str, given: Mapping[str, Any], kind: str, variants: Sequence[Mapping[str, Any]]
) -> _Rule:
    named = given.get("variant")
    holds = reader.rule(place, given)
    rollout = None if given.get("rollout") is None else read_rollout(f"{place}.rollout", given["rollout"], kind)
    variant = next((variant for variant in variants if name_of(variant) == named), None)
    if named is not None and variant is None:
        raise wrong(f"{place}.variant", "the name of a variant of the flag's rollout")
    several = [name for name, there in _servings(given, rollout).items() if there]
    if len(several) > 1:
        raise wrong(f"{place}.{several[0]}", f"absent if {several[1]} is given")
    if not several and kind != "bool":
        raise wrong(f"{place}.serve", f"given: the value that this rule serves, since the flag is a {kind}")
    serve = given.get("serve", True)
    if "serve" in given:
        check_value(f"{place}.serve", kind, serve)
    return _Rule(holds=holds, serve=serve, variant=variant, rollout=rollout)


def _servings(given: Mapping[str, Any], rollout: Mapping[str, Any] | None) -> Mapping[str, bool]:
    """Return which of the ways to serve a value a rule uses; at most one is allowed."""
    return {
        "serve": "serve" in given,
        "variant": given.get("variant") is not None,
        "rollout": bool(rollout and rollout["variants"]),
    }
