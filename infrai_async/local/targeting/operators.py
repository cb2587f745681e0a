"""The operators that a condition of a rule can use; docs/flags.md describes each of them.

The operands of a condition are parsed once, with the rule, which rejects unusable ones. The attributes of an evaluation
context may be anything: a value of another type does not match, and never raises. Booleans are not numbers, and 1
equals 1.0.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeAlias

import attrs
from semver import Version

from infrai_async.models import JSON

Test: TypeAlias = Callable[[JSON], bool]
_MEMORY: Final = 2**17
"""Bytes for a compiled pattern. This bounds its size, and the time to match grows with size times text length."""
_LONGEST: Final = 1000


class Unusable(ValueError):
    """An operand that an operator cannot use; the message says what it must be."""


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: JSON) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _scalar(value: JSON) -> tuple[bool, JSON] | None:
    """Return a key that is equal for equal JSON scalars; in Python, unlike JSON, True equals 1."""
    return (isinstance(value, bool), value) if isinstance(value, bool | int | float | str) else None


def _contents(value: JSON) -> Callable[[tuple[bool, JSON]], bool] | None:
    """Return a test for whether a string or a list contains a value."""
    match value:
        case str():
            return lambda part: isinstance(part[1], str) and part[1] in value
        case list():
            return [_scalar(item) for item in value].__contains__
    return None


_MIDNIGHT: Final = re.compile(r"^(\d{4}-?\d\d-?\d\d)T24:?00((?::?00(?:[.,]0+)?)?(?:Z|[+-].*)?)$", re.ASCII)
_LEAP: Final = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d):60(?=[.,Z+-]|$)", re.ASCII)


def _moment(value: JSON) -> datetime | None:
    """Parse a time in ISO 8601 or RFC 3339, in forms that Python does not read too: 24:00, leap seconds, small letters.

    Without an offset it is in UTC.
    """
    text = value.upper() if isinstance(value, str) else ""
    midnight, leap = _MIDNIGHT.sub(r"\1T00:00\2", text), _LEAP.sub(r"\1:59", text)
    try:
        moment = datetime.fromisoformat(midnight if midnight != text else leap)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        if midnight != text:
            return moment + timedelta(days=1)
        if leap == text:
            return moment
        # Leap seconds end a day in UTC; the second after one is the next day's first.
        at_the_end = moment.astimezone(UTC).strftime("%H:%M") == "23:59"
        return moment.replace(microsecond=0) + timedelta(seconds=1) if at_the_end else None
    except (ValueError, OverflowError):
        return None


def _version(value: JSON) -> Version | None:
    try:
        return Version.parse(value.removeprefix("v"), optional_minor_and_patch=True) if isinstance(value, str) else None
    except ValueError:
        return None


def _short_text(value: JSON) -> str | None:
    return value if isinstance(value, str) and len(value) <= _LONGEST else None


def _pattern(value: JSON) -> str | None:
    if not isinstance(value, str):
        return None
    _compiled(value)
    return value


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """Compile a pattern; the cache is small, because an RE2 pattern keeps allocating memory while it is used."""
    try:
        import re2  # the standard library's engine backtracks, so a pattern could run forever
    except ModuleNotFoundError:
        raise Unusable("absent: matches needs google-re2, which is not installed here (extra 'local')") from None
    options = re2.Options()
    options.log_errors, options.max_mem = False, _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        raise Unusable(f"a regular expression that RE2 accepts; its error is: {reason[:200]}") from None


def _fold(value: JSON) -> JSON:
    match value:
        case str():
            return value.casefold()
        case list():
            return [_fold(item) if isinstance(item, str) else item for item in value]
    return value


def _same(value: JSON) -> JSON:
    return value


@attrs.frozen(kw_only=True)
class Operator:
    """One operator.

    Attributes:
        wants: a description of valid operands.
        read: parses an operand; returns ``None`` for an invalid one.
        see: parses the attribute's value, by default like an operand; where it returns ``None``, nothing matches.
        holds: compares a parsed value with a parsed operand.
        fold: case folding for the operand and for the value; ``None`` if the operator does not compare text.
    """

    wants: str
    read: Callable[[JSON], Any]
    holds: Callable[[Any, Any], bool]
    see: Callable[[JSON], Any] = attrs.field(default=attrs.Factory(lambda self: self.read, takes_self=True))
    fold: tuple[Callable[[JSON], JSON], Callable[[JSON], JSON]] | None = None

    def operand(self, value: JSON, *, ignore_case: bool = False) -> Any:
        """Parse an operand for use with ``test``.

        Raises:
            Unusable: if the operand is invalid.
        """
        read = self.read(self.fold[0](value) if ignore_case and self.fold else value)
        if read is None:
            raise Unusable(self.wants)
        return read

    def test(self, operands: Sequence[Any], *, ignore_case: bool = False) -> Test:
        """Return a test for whether a value matches any of the operands."""
        see, fold = self.see, self.fold[1] if ignore_case and self.fold else _same
        if self.holds is operator.eq:  # a set lookup takes the same time for any number of operands
            found = frozenset(operands).__contains__
        else:
            found = lambda seen: any(self.holds(seen, operand) for operand in operands)  # noqa: E731

        def matches(value: JSON) -> bool:
            seen = see(fold(value))
            return seen is not None and found(seen)

        return matches


_SCALAR: Final = "a string, a number, true or false"
_TEXT: Final = "a string"
_BOTH: Final = (_fold, _fold)
_ORDER: Final = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}

OPERATORS: Final[Mapping[str, Operator]] = {
    "eq": Operator(wants=_SCALAR, read=_scalar, holds=operator.eq, fold=_BOTH),
    "in": Operator(wants=_SCALAR, read=_scalar, holds=operator.eq, fold=_BOTH),
    **{name: Operator(wants="a number", read=_number, holds=holds) for name, holds in _ORDER.items()},
    "contains": Operator(
        wants=_SCALAR, read=_scalar, see=_contents, holds=lambda contains, part: contains(part), fold=_BOTH
    ),
    "starts_with": Operator(wants=_TEXT, read=_text, holds=str.startswith, fold=_BOTH),
    "ends_with": Operator(wants=_TEXT, read=_text, holds=str.endswith, fold=_BOTH),
    "matches": Operator(
        wants="a regular expression",
        read=_pattern,
        see=_short_text,
        holds=lambda text, pattern: _compiled(pattern).search(text) is not None,
        fold=(lambda value: f"(?i){value}" if isinstance(value, str) else value, _same),
    ),
    "exists": Operator(
        wants="true, false or absent",
        read=lambda value: value if isinstance(value, bool) else None,
        see=lambda value: value is not None,
        holds=operator.is_,
    ),
    "before": Operator(wants="a time in ISO 8601, such as '2026-01-31T12:00:00Z'", read=_moment, holds=operator.lt),
    "after": Operator(wants="a time in ISO 8601, such as '2026-01-31T12:00:00Z'", read=_moment, holds=operator.gt),
    **{
        f"semver_{name}": Operator(wants="a version, such as '1.4.0-rc.1'", read=_version, holds=holds)
        for name, holds in _ORDER.items()
    },
    "semver_eq": Operator(
        wants="a version, such as '1.4.0-rc.1'", read=_version, holds=lambda seen, wanted: bool(seen == wanted)
    ),
}
"""Every operator by its name; the prefix ``not_`` negates it."""

ALIASES: Final[Mapping[str, str]] = {
    "==": "eq",
    "equals": "eq",
    "!=": "not_eq",
    "ne": "not_eq",
    "neq": "not_eq",
    "not_equals": "not_eq",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "regex": "matches",
}
"""Alternative names of operators."""
