"""Percentage rollouts, without a gateway: the published formula, its shares, and who stays where when they grow."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infrai_async.local.targeting import rollout
from infrai_async.local.targeting.evaluation import checked, evaluate
from infrai_async.local.targeting.rollout import place

USERS = 100_000


def flag(**fields: Any) -> dict[str, Any]:
    whole = {"type": "bool", "default_value": False, "enabled": True, "archived": False, "rules": [], "rollout": None}
    return checked(whole | fields)


def rolled_out(percentage: float, salt: str = "salt", **fields: Any) -> dict[str, Any]:
    variants = fields.get("variants", [])
    kind = {"type": "string", "default_value": "none"} if variants else {}
    return flag(rollout={"percentage": percentage, "salt": salt, **fields}, **kind)


# --- the formula -------------------------------------------------------------------------------------------------

VECTORS = [("ada", 61903, 64270), ("user-1", 90432, 5887), ("名前", 65466, 11647)]


@pytest.mark.parametrize(("unit", "at", "variant"), VECTORS)
def test_places_are_the_published_ones(unit: str, at: int, variant: int) -> None:
    digests = [sha256(f"{salt}\0{unit}".encode()).hexdigest()[:16] for salt in ("v1", "v1\0variant")]
    assert [int(digest, 16) * 100_000 // 2**64 for digest in digests] == [at, variant]
    assert [place("v1", unit), place("v1\0variant", unit)] == [at, variant]
    assert [unit, str(at), str(variant)] in [line.split() for line in str(rollout.__doc__).splitlines()]


@pytest.mark.parametrize(("unit", "at", "variant"), VECTORS)
def test_a_unit_is_inside_above_its_place_and_its_variant_is_drawn_apart(unit: str, at: int, variant: int) -> None:
    assert not evaluate(rolled_out(at / 1000, "v1"), unit, {}).on
    assert evaluate(rolled_out((at + 1) / 1000, "v1"), unit, {}).on
    for share, expected in ((variant, "b"), (variant + 1, "a")):
        arms = [{"key": "a", "value": "a", "weight": share}, {"key": "b", "value": "b", "weight": 100_000 - share}]
        assert evaluate(rolled_out(100, "v1", variants=arms), unit, {}).variant == expected


def test_a_percentage_is_rounded_to_the_nearest_place() -> None:
    """1.001 * 1000 is a little less than 1001 in floating point; cutting it off would leave out place 1000."""
    assert place("checkout-v2", "user-99663") == 1000
    assert evaluate(rolled_out(1.001, "checkout-v2"), "user-99663", {}).on
    assert not evaluate(rolled_out(1.0, "checkout-v2"), "user-99663", {}).on


def test_places_are_the_same_in_another_process() -> None:
    program = "import sys; from infrai_async.local.targeting.rollout import place; print(place('v1', 'user-1'))"
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == "90432\n"


# --- shares ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percentage", [0, 0.1, 1, 12.5, 50, 99, 99.9, 100])
def test_a_share_of_100_000_users_is_within_a_point_of_its_target(percentage: float) -> None:
    definition = rolled_out(percentage, salt="checkout-v2")
    inside = sum(evaluate(definition, f"user-{number}", {}).on for number in range(USERS))
    assert abs(100 * inside / USERS - percentage) < (1 if 0 < percentage < 100 else 1e-9)


def test_variants_share_100_000_users_by_weight() -> None:
    weights = {"a": 50, "b": 30.5, "c": 19.5, "never": 0}
    variants = [{"key": key, "value": key, "weight": weight} for key, weight in weights.items()]
    definition = rolled_out(100, variants=variants)
    served = [evaluate(definition, str(number), {}).variant for number in range(USERS)]
    for key, weight in weights.items():
        assert abs(100 * served.count(key) / USERS - weight) < (1 if weight else 1e-9)


def test_which_variant_says_nothing_of_who_is_inside() -> None:
    """The users of each variant are as likely inside as all others: the two drawings are independent."""
    variants = [{"key": key, "value": key} for key in "ab"]
    everyone, half = rolled_out(100, variants=variants), rolled_out(50, variants=variants)
    users = [str(number) for number in range(20_000)]
    of_a = [user for user in users if evaluate(everyone, user, {}).variant == "a"]
    inside = sum(evaluate(half, user, {}).reason == "in_rollout" for user in of_a)
    assert abs(100 * inside / len(of_a) - 50) < 2


def test_salts_draw_independently() -> None:
    one, other = rolled_out(50, salt="one"), rolled_out(50, salt="other")
    both = sum(evaluate(one, str(user), {}).on and evaluate(other, str(user), {}).on for user in range(20_000))
    assert abs(100 * both / 20_000 - 25) < 2


# --- growing -----------------------------------------------------------------------------------------------------

PERCENTAGES = st.floats(0, 100) | st.integers(0, 100) | st.sampled_from([0.001, 0.0005, 33.3335, 99.9995])
VARIANTS = st.lists(st.floats(0, 1000) | st.integers(0, 5), min_size=1, max_size=5)


@given(
    sizes=st.tuples(PERCENTAGES, PERCENTAGES).map(sorted),
    weights=VARIANTS,
    salt=st.text(),
    user=st.text(min_size=1),
)
def test_growing_moves_nobody_out_nor_to_another_variant(sizes: Any, weights: Any, salt: str, user: str) -> None:
    assume(any(weights))
    variants = [{"key": str(key), "value": str(key), "weight": weight} for key, weight in enumerate(weights)]
    before, after = (evaluate(rolled_out(size, salt, variants=variants), user, {}) for size in sizes)
    if before.reason == "in_rollout":
        assert after == before
    if after.variant is not None:
        assert weights[int(after.variant)] > 0


@given(sizes=st.tuples(PERCENTAGES, PERCENTAGES).map(sorted), salt=st.text(), user=st.text(min_size=1))
def test_growing_a_rules_own_roll_out_moves_nobody_out(sizes: Any, salt: str, user: str) -> None:
    asked = {"attribute": "user_id", "operator": "exists"}
    before, after = (
        evaluate(flag(enabled=True, rules=[asked | {"rollout": {"percentage": size, "salt": salt}}]), user, {})
        for size in sizes
    )
    assert before.reason != "rule_match" or after == before


# --- units -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "text"), [("u", "u"), (5, "5"), (5.0, "5"), (-3, "-3"), (2**60, str(2**60)), ("5", "5"), ("true", "true")]
)
def test_a_unit_is_a_text_or_a_whole_number(unit: Any, text: str) -> None:
    for salt in ("a", "b", "c", "d"):
        definition = rolled_out(50, salt, sticky_unit="session_id")
        assert evaluate(definition, "nobody", {"session_id": unit}).on == (place(salt, text) < 50_000)


@pytest.mark.parametrize("unit", [None, "", True, 1.5, [], ["u"], {"u": 1}])
def test_whoever_has_no_unit_is_only_where_all_are(unit: Any) -> None:
    for percentage in (0, 50, 99.999, 100):
        verdict = evaluate(rolled_out(percentage, sticky_unit="device_id"), "u", {"device_id": unit})
        assert verdict.on == (percentage == 100)


def test_the_users_id_comes_from_the_call_or_else_from_the_context() -> None:
    inside = next(str(user) for user in range(100) if place("salt", str(user)) < 10_000)
    outside = next(str(user) for user in range(100) if place("salt", str(user)) >= 10_000)
    definition = rolled_out(10)
    assert evaluate(definition, None, {"user_id": inside}).on
    assert evaluate(definition, inside, {"user_id": outside}).on
    assert not evaluate(definition, outside, {"user_id": inside}).on
