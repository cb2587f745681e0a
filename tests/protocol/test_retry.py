"""Whether to send again, and when."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async._protocol.retry import (
    RetryDecision,
    RetryPolicy,
    decide_on_error,
    decide_without_response,
    retry_after_seconds,
)
from infrai_async.capabilities import CAPABILITIES
from infrai_async.errors import APIError, ConnectError, InvalidArgument, TimeoutError, TransportError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GET, DELETE = CAPABILITIES["db.project.get"], CAPABILITIES["db.project.delete"]
SAFE, UNSAFE = CAPABILITIES["db.project.create"], CAPABILITIES["flags.set"]


# --- the policy --------------------------------------------------------------------------------------------------


def test_the_default_policy_is_the_documented_one() -> None:
    assert RetryPolicy() == RetryPolicy(max_attempts=4, initial=0.25, maximum=8.0)


def test_no_retries_is_one_attempt() -> None:
    assert RetryPolicy.none().max_attempts == 1


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, True, "3", None, math.inf], ids=repr)
def test_attempts_are_a_whole_number_from_one(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^max_attempts must be a whole number, 1 or more$"):
        RetryPolicy(max_attempts=value)


@pytest.mark.parametrize("name", ["initial", "maximum"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, True, "3", None], ids=repr)
def test_pauses_are_finite_and_not_negative(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=rf"^{name} must be a finite number of seconds, 0 or more$"):
        RetryPolicy(**{name: value})


def test_a_policy_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RetryPolicy().max_attempts = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 0.25), (2, 0.5), (3, 1.0), (4, 2.0), (5, 4.0), (6, 8.0), (7, 8.0), (10_000, 8.0)]
)
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_pause_doubles_up_to_the_maximum(failures: int, longest: float, chance: float) -> None:
    assert RetryPolicy().pause(failures, chance) == longest * chance


@given(
    initial=st.floats(0, 1e300),
    maximum=st.floats(0, 1e300),
    failures=st.integers(1, 10**9),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_never_passes_the_maximum(initial: float, maximum: float, failures: int, chance: float) -> None:
    assert 0 <= RetryPolicy(initial=initial, maximum=maximum).pause(failures, chance) <= maximum


# --- Retry-After -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1", 1.0),
        ("120", 120.0),
        ("0.5", 0.5),
        ("1.25", 1.25),
        (" 2 ", 2.0),
        ("0.001", 0.001),
        ("0", None),
        ("0.0", None),
        ("0.0001", None),
        ("-1", None),
        ("-0.5", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e999", None),
        ("", None),
        ("soon", None),
        ("1 s", None),
        ("1,5", None),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Fri, 02 Jan 2026 05:04:35 +0200", 30.0),
        ("Fri, 02 Jan 2026 03:04:35 -0000", 30.0),
        ("02 Jan 2026 03:04:35", 30.0),
        ("Friday, 02-Jan-26 03:04:35 GMT", 30.0),
        ("Fri Jan  2 03:04:35 2026", 30.0),
        ("Fri, 02 Jan 2026 03:04:05 GMT", None),
        ("Thu, 01 Jan 2026 00:00:00 GMT", None),
        ("Fri, 32 Jan 2026 03:04:35 GMT", None),
        ("Fri, 02 Jan 99999 03:04:35 GMT", None),
        ("Fri, 02 Jan 2026 03:04:35 +9999", None),
        ("Fri, 02 Jan 2026 03:04:35 +99999999999999999999", None),
        ("2026-01-02T03:04:35Z", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_seconds({"Retry-After": text}, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After-Ms": "12.5"}, 0.0125),
        ({"Retry-After-Ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After-Ms": "", "Retry-After": "9"}, 9.0),
        ({"Retry-After-Ms": "0", "Retry-After": "9"}, 9.0),
        ({"Retry-After-Ms": "-1"}, None),
        ({"Retry-After-Ms": "nan"}, None),
        ({"Retry-After-Ms": "9" * 400}, math.inf),
        ({"Retry-After": "9" * 400}, math.inf),
        ({"Retry-After": "1e308"}, 1e308),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "1_0"}, None),
        ({"Retry-After": "+5"}, None),
        ({"Retry-After": "\u0665"}, None),
        ({"Retry-After-Ms": "infinity", "Retry-After": "9"}, 9.0),
    ],
)
def test_milliseconds_come_first_and_a_number_may_have_any_size(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("asked", "longest", "believed"),
    [(1.5, 300.0, 1.5), (300.0, 300.0, 300.0), (301.0, 300.0, 300.0), (1e308, 300.0, 300.0), (math.inf, 5.0, 5.0)],
)
def test_a_policy_believes_a_pause_up_to_a_limit(asked: float, longest: float, believed: float) -> None:
    assert RetryPolicy(longest_pause=longest).believe(asked) == believed


def test_a_policy_never_makes_a_busy_loop_of_a_pause() -> None:
    assert RetryPolicy(longest_pause=0).believe(9.0) == 0.001
    assert RetryPolicy().believe(None) is None
    assert RetryPolicy().longest_pause == 300.0


def test_tiny_pauses_again_and_again_get_longer() -> None:
    pauses = [RetryPolicy().believe(0.001, attempts) for attempts in range(40)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[3], pauses[-1]) == (0.001, 0.008, 0.25)
    assert RetryPolicy().believe(2.0, 1000) == 2.0


def test_an_absent_retry_after_is_none() -> None:
    assert retry_after_seconds({}, NOW) is None


@given(st.text(max_size=40))
def test_whatever_retry_after_says_it_is_a_positive_finite_length_or_none(text: str) -> None:
    seconds = retry_after_seconds({"Retry-After": text}, NOW)
    assert seconds is None or 0 < seconds < math.inf


# --- verdicts (D19) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [GET, DELETE, SAFE, UNSAFE], ids=lambda row: row.id)
def test_what_was_not_sent_may_be_sent_again(row: Any) -> None:
    assert decide_without_response(row, ConnectError("x"), sent=False) == RetryDecision(ambiguous=False, retry=True)


@pytest.mark.parametrize(("row", "again"), [(GET, True), (DELETE, True), (SAFE, True), (UNSAFE, False)])
def test_what_broke_on_the_way_is_ambiguous(row: Any, again: bool) -> None:
    assert decide_without_response(row, TransportError("x"), sent=True) == RetryDecision(ambiguous=True, retry=again)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("row", [GET, DELETE, SAFE, UNSAFE], ids=lambda row: row.id)
def test_a_call_whose_time_ran_out_is_not_sent_again(row: Any, sent: bool) -> None:
    assert decide_without_response(row, TimeoutError("x"), sent=sent) == RetryDecision(ambiguous=sent, retry=False)


@pytest.mark.parametrize("row", CAPABILITIES.values(), ids=lambda row: row.id)
@pytest.mark.parametrize("retryable", [None, True, False])
@pytest.mark.parametrize("retry_after", [None, 2.0])
def test_a_402_is_never_sent_again(row: Any, retryable: bool | None, retry_after: float | None) -> None:
    error = APIError("x", status=402, retryable=retryable)
    assert decide_on_error(row, error, retry_after) == RetryDecision(ambiguous=False, retry=False)


@pytest.mark.parametrize("row", [GET, DELETE, SAFE, UNSAFE], ids=lambda row: row.id)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409, 422, 500, 503])
@pytest.mark.parametrize("retryable", [True, False])
def test_what_the_service_says_of_trying_again_is_obeyed(row: Any, status: int, retryable: bool) -> None:
    decision = decide_on_error(row, APIError("x", status=status, retryable=retryable), None)
    assert decision == RetryDecision(ambiguous=False, retry=retryable)


@pytest.mark.parametrize("status", [500, 502])
def test_retry_after_of_another_5xx_is_the_least_pause_and_holds_nobody(status: int) -> None:
    decision = decide_on_error(GET, APIError("x", status=status), 2.0)
    assert decision == RetryDecision(ambiguous=True, retry=True, throttle=None, after=2.0)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_of_a_429_or_503_holds_the_pool(status: int) -> None:
    assert decide_on_error(GET, APIError("x", status=status), 2.0).throttle == 2.0
