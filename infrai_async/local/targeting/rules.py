"""Parse the targeting rules of a flag into conditions that can be evaluated; docs/flags.md describes their syntax.

Parsing rejects every mistake and names its place, so a parsed condition never fails, whatever the context contains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from infrai_async.local._errors import RequestRefused, invalid
from infrai_async.local.targeting.operators import ALIASES, OPERATORS, Operator, Unusable
from infrai_async.models import JSON

EvaluationContext: TypeAlias = Mapping[str, JSON]
"""The attributes that rules are evaluated against, including ``user_id`` if the caller gave it."""
Condition: TypeAlias = Callable[[EvaluationContext], bool]

_MOST: Final = 1000
_MOST_PATTERNS: Final = 16
_DEEPEST: Final = 10
_COMBINED: Final = ("all", "any", "not")
_ASKING: Final = ("attribute", "operator", "value", "values", "negate", "ignore_case", *_COMBINED)
_SERVING: Final = ("serve", "variant", "rollout")
_LABELS: Final = ("id", "name", "description")


def wrong(place: str, wanted: str) -> RequestRefused:
    """Return a 400 that names the place of a mistake and what is valid there."""
    return invalid(f"{place} must be {wanted}", **{place: wanted})


def _look_up(context: EvaluationContext, attribute: str) -> JSON:
    """Return the attribute ``a.b``: the attribute of that full name, else ``b`` inside ``a``, else null."""
    if attribute in context:
        return context[attribute]
    here: Any = context
    for name in attribute.split("."):
        here = here.get(name) if isinstance(here, dict) else None
    found: JSON = here
    return found


class RuleParser:
    """Parse the rules of one flag, which share limits on the number of conditions and patterns."""

    def __init__(self) -> None:
        self._left = {"conditions": _MOST, "patterns": _MOST_PATTERNS}

    def rule(self, place: str, given: Mapping[str, Any]) -> Condition:
        """Parse the condition of a rule.

        Raises:
            RequestRefused: 400, if the rule is invalid.
        """
        _check_names(place, given, (*_ASKING, *_SERVING, *_LABELS))
        return self._condition(place, given, 0)

    def _condition(self, place: str, given: Mapping[str, Any], depth: int) -> Condition:
        forms = [name for name in ("attribute", *_COMBINED) if given.get(name) is not None]
        if len(forms) > 1:
            raise wrong(place, f"one condition: {' or '.join(forms)}")
        if forms and forms[0] in _COMBINED:
            return self._combined(place, forms[0], given[forms[0]], depth + 1)
        return self._leaf(place, given)

    def _combined(self, place: str, form: str, given: Any, depth: int) -> Condition:
        place = f"{place}.{form}"
        if depth > _DEEPEST:
            raise wrong(place, f"nested at most {_DEEPEST} deep")
        if form == "not":
            return _opposite(self._part(place, given, depth))
        if not (isinstance(given, list) and given):
            raise wrong(place, "a list of at least one condition")
        parts = [self._part(f"{place}[{number}]", part, depth) for number, part in enumerate(given)]
        if form == "all":
            return lambda context: all(part(context) for part in parts)
        return lambda context: any(part(context) for part in parts)

    def _part(self, place: str, given: Any, depth: int) -> Condition:
        if not isinstance(given, dict):
            raise wrong(place, "an object")
        _check_names(place, given, (*_ASKING, *_LABELS))
        return self._condition(place, given, depth)

    def _leaf(self, place: str, given: Mapping[str, Any]) -> Condition:
        attribute = given.get("attribute")
        if not (isinstance(attribute, str) and attribute):
            raise wrong(f"{place}.attribute", "the name of an attribute (or give all, any or not)")
        name, negated = _operator(f"{place}.operator", given.get("operator"))
        negated ^= _flag(place, given, "negate")
        ignore_case = _flag(place, given, "ignore_case")
        made = OPERATORS[name]
        if ignore_case and made.fold is None:
            raise wrong(f"{place}.ignore_case", f"absent: {name} does not compare text")
        operands = _operands(place, name, given)
        self._spend("conditions", 1 if name in ("eq", "in") else max(1, len(operands)))
        self._spend("patterns", len(operands) if name == "matches" else 0)
        read = [_read(where, made, value, ignore_case) for where, value in operands]
        test = made.test(read, ignore_case=ignore_case)

        def holds(context: EvaluationContext) -> bool:
            return test(_look_up(context, attribute))

        return _opposite(holds) if negated else holds

    def _spend(self, what: str, count: int) -> None:
        self._left[what] -= count
        if self._left[what] < 0:
            most = {"conditions": _MOST, "patterns": _MOST_PATTERNS}[what]
            raise wrong("rules", f"at most {most} {what} in all")


def _opposite(condition: Condition) -> Condition:
    return lambda context: not condition(context)


def _check_names(place: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name in _SERVING and name not in known:
            raise wrong(f"{place}.{name}", "absent: only a rule as a whole can serve a value")
        if name not in known:
            raise wrong(f"{place}.{name[:40]}", f"absent; the known fields are {', '.join(known)}")


def _flag(place: str, given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong(f"{place}.{name}", "true or false")
    return bool(value)


def _operator(place: str, given: Any) -> tuple[str, bool]:
    name = ALIASES.get(given, given) if isinstance(given, str) else ""
    plain = name.removeprefix("not_")
    if plain not in OPERATORS:
        raise wrong(place, f"one of {', '.join(OPERATORS)}, each also with not_ before it")
    return plain, plain != name


def _operands(place: str, name: str, given: Mapping[str, Any]) -> list[tuple[str, JSON]]:
    """Return the operands of a condition, each with its place: the one ``value``, or all ``values``."""
    one, many = given.get("value"), given.get("values")
    if one is not None and many is not None:
        raise wrong(f"{place}.values", "absent if value is given")
    if many is None and name != "in":
        return [(f"{place}.value", True if name == "exists" and one is None else one)]
    where, many = (f"{place}.value", one) if many is None else (f"{place}.values", many)
    if not isinstance(many, list):
        raise wrong(where, "a list")
    return [(f"{where}[{number}]", value) for number, value in enumerate(many)]


def _read(place: str, made: Operator, value: JSON, ignore_case: bool) -> Any:
    try:
        return made.operand(value, ignore_case=ignore_case)
    except Unusable as error:
        raise wrong(place, str(error)) from None
