"""Each operator against an oracle in plain Python, and how conditions are combined: pure, without a gateway."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import zip_longest
from time import perf_counter
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from infrai_async.local._errors import RequestRefused
from infrai_async.local.targeting.operators import ALIASES, OPERATORS
from infrai_async.local.targeting.rules import RuleParser

SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
NEAR = st.sampled_from([True, False, 0, 1, 1.0, 0.0, -0.0, 2, "1", "true", "", "a", "A", "ab", "ß", "SS", "ss"])
ANYTHING = st.recursive(
    st.none() | SCALARS | NEAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
TEXTS = st.text(alphabet="aAbBßsS.", max_size=6) | st.text(max_size=6)
ABSENT = object()


def holds(condition: dict[str, Any], context: Any) -> bool:
    return RuleParser().rule("rules[0]", condition)(context)


def asked(operator: str, seen: Any, **fields: Any) -> bool:
    context = {} if seen is ABSENT else {"a": seen}
    return holds({"attribute": "a", "operator": operator, **fields}, context)


def refused(condition: Any) -> tuple[str, str]:
    """The place and what should have been there."""
    with pytest.raises(RequestRefused) as refusal:
        RuleParser().rule("rules[0]", condition)
    assert (refusal.value.status, refusal.value.code) == (400, "VALIDATION_ERROR")
    ((place, wanted),) = refusal.value.details["fields"].items()
    assert refusal.value.message == f"{place} must be {wanted}"
    return place, wanted


# --- operators ---------------------------------------------------------------------------------------------------


def same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return type(one) is type(other) and one == other
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


@given(seen=ANYTHING | NEAR, wanted=SCALARS | NEAR)
@example(seen=True, wanted=1)
@example(seen=1.0, wanted=1)
@example(seen=2**53 + 1, wanted=2.0**53)
def test_eq(seen: Any, wanted: Any) -> None:
    assert asked("eq", seen, value=wanted) == (is_scalar(seen) and same(seen, wanted))


@given(seen=ANYTHING | NEAR, wanted=st.lists(SCALARS | NEAR, max_size=5))
@example(seen=False, wanted=[0])
def test_in_takes_its_list_as_value_or_values(seen: Any, wanted: list[Any]) -> None:
    expected = is_scalar(seen) and any(same(seen, item) for item in wanted)
    assert asked("in", seen, value=wanted) == asked("in", seen, values=wanted) == expected


@pytest.mark.parametrize("name", ["gt", "gte", "lt", "lte"])
@given(seen=ANYTHING | NEAR, wanted=st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_have_an_order_and_nothing_else_has(name: str, seen: Any, wanted: float) -> None:
    if type(seen) in (int, float):
        expected = {"gt": seen > wanted, "gte": seen >= wanted, "lt": seen < wanted, "lte": seen <= wanted}[name]
    else:
        expected = False
    assert asked(name, seen, value=wanted) == expected


@given(seen=ANYTHING | TEXTS | st.lists(NEAR), part=SCALARS | NEAR)
@example(seen=[1], part=True)
@example(seen="1", part=1)
def test_contains_looks_into_texts_and_lists(seen: Any, part: Any) -> None:
    if isinstance(seen, str):
        expected = isinstance(part, str) and seen.find(part) >= 0
    else:
        expected = isinstance(seen, list) and any(is_scalar(item) and same(item, part) for item in seen)
    assert asked("contains", seen, value=part) == expected


@given(seen=ANYTHING | TEXTS, end=TEXTS)
def test_the_ends_of_texts(seen: Any, end: str) -> None:
    is_text = isinstance(seen, str)
    assert asked("starts_with", seen, value=end) == (is_text and seen[: len(end)] == end)
    assert asked("ends_with", seen, value=end) == (is_text and (not end or seen[-len(end) :] == end))


@given(seen=TEXTS, other=TEXTS)
def test_case_is_folded_where_asked(seen: str, other: str) -> None:
    one, two = seen.casefold(), other.casefold()
    expected = {"eq": one == two, "contains": two in one, "starts_with": one.startswith(two)}
    expected |= {"ends_with": one.endswith(two), "in": one == two}
    for name, answer in expected.items():
        fields = {"values": [other]} if name == "in" else {"value": other}
        assert asked(name, seen, ignore_case=True, **fields) == answer
    assert asked("contains", [1, seen], value=other, ignore_case=True) == (one == two)


@pytest.mark.parametrize(
    ("one", "other"), [("Straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("ﬁ", "FI"), ("İ", "i̇"), ("Ǆ", "ǆ")]
)
def test_case_is_that_of_unicode(one: str, other: str) -> None:
    assert not asked("eq", one, value=other)
    assert asked("eq", one, value=other, ignore_case=True)
    assert asked("in", other, values=["x", one], ignore_case=True)


PATTERNS = ["a", "^a", "b$", "^[ab]+$", "a.b", "(a|b){2,3}", "^$", r"\d", "[^a]", "a?b*", r"\.", "aA"]


@given(seen=ANYTHING | st.text(alphabet="aAb1.", max_size=6), pattern=st.sampled_from(PATTERNS), fold=st.booleans())
def test_matches_searches_as_regular_expressions_do(seen: Any, pattern: str, fold: bool) -> None:
    assume(not isinstance(seen, str) or (seen.isascii() and "\n" not in seen))
    flags = re.IGNORECASE if fold else 0
    expected = isinstance(seen, str) and re.search(pattern, seen, flags) is not None
    assert asked("matches", seen, value=pattern, ignore_case=fold) == expected


@given(seen=ANYTHING)
def test_exists_is_there_and_not_null(seen: Any) -> None:
    for fields in ({}, {"value": None}, {"value": True}):
        assert asked("exists", seen, **fields) == (seen is not None)
    assert asked("exists", seen, value=False) == (seen is None)
    assert asked("not_exists", ABSENT)
    assert not asked("exists", ABSENT)


MOMENTS = st.integers(0, 3_652_000 * 86_400 * 10**6).map(
    lambda microseconds: datetime(1, 1, 2, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(seen=MOMENTS, other=MOMENTS, zone=ZONES, another=ZONES)
def test_times_compare_whatever_their_zones(seen: datetime, other: datetime, zone: Any, another: Any) -> None:
    texts = seen.astimezone(zone).isoformat(), other.astimezone(another).isoformat()
    microseconds = (seen - other) // timedelta(microseconds=1)
    assert asked("before", texts[0], value=texts[1]) == (microseconds < 0)
    assert asked("after", texts[0], value=texts[1]) == (microseconds > 0)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-05-31t23:59:59z", "2026-05-31T23:59:59Z"),
        ("2026-05-31T24:00:00Z", "2026-06-01T00:00:00Z"),
        ("2026-05-31T24:00", "2026-06-01T00:00:00Z"),
        ("2026-12-31T24:00:00.000+02:00", "2027-01-01T00:00:00+02:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00Z"),
        ("2017-01-01T05:29:60+05:30", "2017-01-01T00:00:00Z"),
    ],
)
def test_all_forms_of_a_time_are_read_on_every_python(text: str, same: str) -> None:
    for operator in ("before", "after"):
        assert not asked(operator, text, value=same)
        assert not asked(operator, same, value=text)
    assert asked("before", text, value="2099-01-01")
    assert asked("after", "2099-01-01", value=text)


@pytest.mark.parametrize(
    "text",
    ["2026-05-31T24:00:01Z", "2026-05-31T24:30", "2026-05-31T12:00:60Z", "2026-05-31T23:58:60Z", "9999-12-31T24:00"],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert not asked("before", text, value="2099-01-01")
    assert not asked("after", text, value="2000-01-01")


def test_a_time_without_a_zone_is_utc_and_a_date_its_midnight() -> None:
    assert asked("after", "2026-01-01T00:00:01", value="2026-01-01")
    assert asked("before", "2025-12-31T23:59:59Z", value="2026-01-01")
    assert not asked("before", "2026-01-01", value="2026-01-01T00:00:00Z")
    assert not asked("before", "2026-01-01", value="2026-01-01T01:00:00+01:00")
    assert asked("before", "0001-01-01T00:00:00+14:00", value="9999-12-31T23:59:59-14:00")  # beyond what UTC can hold


NUMBERS = st.integers(0, 11)
LABELS = st.lists(st.sampled_from(["alpha", "beta", "0", "1", "2", "10", "rc-1", "x"]), max_size=3)
VERSIONS = st.tuples(st.tuples(NUMBERS, NUMBERS, NUMBERS), LABELS)


def text_of(version: Any, build: str = "") -> str:
    return ".".join(map(str, version[0])) + ("-" + ".".join(version[1]) if version[1] else "") + build


def precedence(one: Any, other: Any) -> int:
    """Semantic Versioning 2.0.0, section 11, to the letter: -1, 0 or 1."""
    if one[0] != other[0]:
        return 1 if one[0] > other[0] else -1
    if not one[1] or not other[1]:
        return bool(other[1]) - bool(one[1])
    for left, right in zip_longest(one[1], other[1]):
        if left == right:
            continue
        if left is None or right is None:
            return -1 if left is None else 1
        if left.isdigit() != right.isdigit():
            return -1 if left.isdigit() else 1
        if left.isdigit():
            return 1 if int(left) > int(right) else -1
        return 1 if left > right else -1
    return 0


@given(seen=VERSIONS, wanted=VERSIONS, build=st.sampled_from(["", "+7", "+a.b"]), v=st.sampled_from(["", "v"]))
def test_versions_have_the_order_of_the_standard(seen: Any, wanted: Any, build: str, v: str) -> None:
    order = precedence(seen, wanted)
    expected = {"eq": order == 0, "gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}
    for name, answer in expected.items():
        assert asked(f"semver_{name}", v + text_of(seen, build), value=text_of(wanted)) == answer, name


def test_a_version_may_lack_its_last_numbers() -> None:
    assert asked("semver_eq", "2", value="2.0.0")
    assert asked("semver_gt", "1.10", value="1.9.3")
    assert not asked("semver_gt", "1.10.x", value="1.9.3")


OPERANDS: dict[str, Any] = {
    **dict.fromkeys(OPERATORS, "1"),
    **dict.fromkeys(["gt", "gte", "lt", "lte"], 1),
    "in": [True],
    "before": "2026-01-01",
    "after": "2026-01-01",
    "exists": None,
}


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=60)
@given(seen=ANYTHING | st.just(ABSENT) | st.text(alphabet="0123456789-:T.+Zv", max_size=12))
def test_every_operator_takes_anything_and_its_opposite_says_the_opposite(name: str, seen: Any) -> None:
    fields: dict[str, Any] = {"value": OPERANDS[name]}
    answer = asked(name, seen, **fields)
    context = {} if seen is ABSENT else {"a": seen}
    inner = {"attribute": "a", "operator": name, **fields}
    assert isinstance(answer, bool)
    assert asked(f"not_{name}", seen, **fields) is not answer
    assert asked(name, seen, negate=True, **fields) is not answer
    assert asked(f"not_{name}", seen, negate=True, **fields) is answer
    assert holds({"not": inner}, context) is not answer
    if seen is ABSENT:
        assert answer is False


@pytest.mark.parametrize(
    "seen", ["1" * 8000, "9" * 5000 + ".0.0", "1.0.0-" + "a." * 4000 + "a", "[" * 8000, "\0", "\ud7ff"]
)
def test_strange_texts_match_nothing_or_something_but_never_fail(seen: str) -> None:
    for name in OPERATORS:
        assert asked(name, seen, value=OPERANDS[name]) in (True, False)


@given(seen=NEAR, wanted=st.lists(NEAR, min_size=1, max_size=4))
def test_of_several_values_any_will_do(seen: Any, wanted: list[Any]) -> None:
    assert asked("eq", seen, values=wanted) == any(asked("eq", seen, value=one) for one in wanted)
    assert asked("contains", [seen], values=wanted) == any(asked("contains", [seen], value=one) for one in wanted)
    assert asked("not_eq", seen, values=wanted) == all(asked("not_eq", seen, value=one) for one in wanted)


def test_other_names_mean_the_same() -> None:
    for alias, name in ALIASES.items():
        operand = OPERANDS[name.removeprefix("not_")]
        for seen in (0, 1, 2, "1", "12"):
            assert asked(alias, seen, value=operand) == asked(name, seen, value=operand)


# --- attributes and combinations ---------------------------------------------------------------------------------


def test_a_path_leads_into_objects_and_a_whole_name_goes_first() -> None:
    condition = {"attribute": "app.version.major", "operator": "eq", "value": 2}
    assert holds(condition, {"app": {"version": {"major": 2}}})
    assert holds(condition, {"app.version.major": 2, "app": {"version": {"major": 3}}})
    for context in ({"app": {"version": 2}}, {"app": [{"version": {"major": 2}}]}, {"app": None}, {}, {"app": "x"}):
        assert not holds(condition, context)


FACTS = st.dictionaries(st.sampled_from("pqr"), st.booleans())
TREES = st.recursive(
    st.sampled_from("pqr").map(lambda name: {"attribute": name, "operator": "eq", "value": True}),
    lambda inner: (
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=6,
)


def truth(tree: dict[str, Any], facts: dict[str, bool]) -> bool:
    if "all" in tree:
        return all(truth(part, facts) for part in tree["all"])
    if "any" in tree:
        return any(truth(part, facts) for part in tree["any"])
    return not truth(tree["not"], facts) if "not" in tree else facts.get(tree["attribute"], False)


def depth(tree: Any) -> int:
    inner = [*tree.get("all", []), *tree.get("any", []), *([tree["not"]] if "not" in tree else [])]
    return 1 + max(map(depth, inner)) if inner else 0


@given(tree=TREES, facts=FACTS)
def test_conditions_combine_as_logic_has_it(tree: Any, facts: dict[str, bool]) -> None:
    assume(depth(tree) <= 10)
    assert holds(tree, facts) == truth(tree, facts)


# --- what is refused ---------------------------------------------------------------------------------------------

LEAF = {"attribute": "a", "operator": "eq", "value": 1}


@pytest.mark.parametrize(
    ("condition", "place", "wanted"),
    [
        ({}, "attribute", "the name of an attribute"),
        (LEAF | {"attribute": ""}, "attribute", "the name of an attribute"),
        (LEAF | {"attribute": 3}, "attribute", "the name of an attribute"),
        ({"attribute": "a", "value": 1}, "operator", "one of eq, in, gt"),
        (LEAF | {"operator": "like"}, "operator", "one of eq, in, gt"),
        (LEAF | {"operator": ["eq"]}, "operator", "one of eq, in, gt"),
        (LEAF | {"operator": "not_"}, "operator", "each also with not_"),
        (LEAF | {"value": None}, "value", "a string, a number, true or false"),
        (LEAF | {"value": [1]}, "value", "a string, a number, true or false"),
        (LEAF | {"values": [2]}, "values", "absent if value is given"),
        ({"attribute": "a", "operator": "eq", "values": 1}, "values", "a list"),
        ({"attribute": "a", "operator": "in"}, "value", "a list"),
        (LEAF | {"operator": "in", "value": "x"}, "value", "a list"),
        (LEAF | {"operator": "in", "value": [1, None]}, "value[1]", "a string, a number"),
        ({"attribute": "a", "operator": "not_in", "values": ["x", []]}, "values[1]", "a string, a number"),
        (LEAF | {"operator": "gt", "value": "5"}, "value", "a number"),
        (LEAF | {"operator": "lte", "value": True}, "value", "a number"),
        (LEAF | {"operator": "starts_with"}, "value", "a string"),
        (LEAF | {"operator": "exists"}, "value", "true, false or absent"),
        (LEAF | {"operator": "before", "value": "tomorrow"}, "value", "a time in ISO 8601"),
        (LEAF | {"operator": "after", "value": 1767225600}, "value", "a time in ISO 8601"),
        (LEAF | {"operator": "semver_gte", "value": "1.x"}, "value", "a version, such as"),
        (LEAF | {"operator": "matches", "value": "(a"}, "value", "missing )"),
        (LEAF | {"operator": "matches", "value": r"(a)\1"}, "value", "invalid escape sequence"),
        (LEAF | {"operator": "matches", "value": "(?=a)"}, "value", "a regular expression that RE2 accepts"),
        (LEAF | {"operator": "matches", "value": "((a{100}){100}){100}"}, "value", "repetition"),
        (LEAF | {"operator": "matches", "value": r"\w{1000}" * 3}, "value", "pattern too large"),
        (LEAF | {"operator": "matches", "value": 5}, "value", "a regular expression"),
        (LEAF | {"negate": "yes"}, "negate", "true or false"),
        (LEAF | {"ignore_case": 1}, "ignore_case", "true or false"),
        (LEAF | {"operator": "gt", "ignore_case": True}, "ignore_case", "absent: gt does not compare text"),
        (LEAF | {"ignoreCase": True}, "ignoreCase", "absent; the known fields are attribute, operator"),
        (LEAF | {"all": [LEAF]}, "", "one condition: attribute or all"),
        ({"all": [LEAF], "any": [LEAF]}, "", "one condition: all or any"),
        ({"all": []}, "all", "a list of at least one condition"),
        ({"any": LEAF}, "any", "a list of at least one condition"),
        ({"any": [LEAF, 7]}, "any[1]", "an object"),
        ({"not": [LEAF]}, "not", "an object"),
        ({"all": [LEAF, {"not": {"any": [LEAF | {"operator": "="}]}}]}, "all[1].not.any[0].operator", "one of eq"),
        ({"all": [LEAF | {"serve": True}]}, "all[0].serve", "absent: only a rule as a whole can serve"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(condition: Any, place: str, wanted: str) -> None:
    named, told = refused(condition)
    assert named == (f"rules[0].{place}" if place else "rules[0]")
    assert wanted in told


def nested(levels: int) -> dict[str, Any]:
    condition: dict[str, Any] = LEAF
    for _ in range(levels):
        condition = {"not": condition}
    return condition


def test_conditions_nest_ten_deep() -> None:
    assert holds(nested(10), {"a": 1}) is True
    for levels in (11, 500):
        place, wanted = refused(nested(levels))
        assert (place.count("not"), wanted) == (11, "nested at most 10 deep")


@pytest.mark.parametrize(
    ("condition", "most"),
    [
        ({"any": [LEAF] * 1001}, "1000 conditions"),
        ({"attribute": "a", "operator": "contains", "values": ["x"] * 1001}, "1000 conditions"),
        ({"attribute": "a", "operator": "matches", "values": ["x"] * 17}, "16 patterns"),
    ],
)
def test_a_flag_asks_so_much_and_no_more(condition: Any, most: str) -> None:
    assert refused(condition) == ("rules", f"at most {most} in all")


def test_a_list_to_be_in_may_be_long() -> None:
    condition = {"attribute": "a", "operator": "in", "values": [f"user-{number}" for number in range(50_000)]}
    assert holds(condition, {"a": "user-49999"})
    assert not holds(condition, {"a": "user-50000"})


# What engines that go back and forth, such as Python's, try for ever; and what is large for RE2.
HOSTILE = [
    "(a+)+$",
    "(a|aa)+$",
    "(.*)*x",
    "(a|a?)+$",
    "((a|b){50}){10}c",
    "[a-z]{1,1000}x",
    "(?:a?){200}a{200}",
    "(x+x+)+y",
]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_runs_for_long(pattern: str) -> None:
    rule = {"attribute": "a", "operator": "matches", "value": pattern}
    condition = RuleParser().rule("rules[0]", rule)
    began = perf_counter()
    for text in ("a" * 999 + "!", "ab" * 499 + "!", "x" * 1000):
        condition({"a": text})
    assert perf_counter() - began < 10


def test_a_text_of_more_than_1000_characters_matches_no_pattern() -> None:
    assert asked("matches", "ü" * 1000, value="ü")
    assert not asked("matches", "ü" * 1001, value="ü")


def test_without_re2_matches_is_refused_and_all_else_works() -> None:
    program = """
import sys
sys.modules["re2"] = None
from infrai_async.local._errors import RequestRefused
from infrai_async.local.targeting.rules import RuleParser
leaf = {"attribute": "a", "operator": "eq", "value": "x"}
assert RuleParser().rule("rules[0]", leaf)({"a": "x"})
try:
    RuleParser().rule("rules[0]", leaf | {"operator": "matches"})
except RequestRefused as refusal:
    print(refusal.status, refusal.message)
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert told.startswith("400 rules[0].value must be absent: matches needs google-re2")
