"""The tree of errors, and that none loses anything on its way between processes."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrai_async import errors
from infrai_async.errors import (
    APIError,
    Attempt,
    AuthenticationError,
    BadRequestError,
    BudgetExceeded,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    DecodeError,
    InfraiError,
    InsufficientCreditError,
    InvalidArgument,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TimeoutError,
    TransportError,
    api_error_class,
)

BASES: dict[type[InfraiError], tuple[type, ...]] = {
    ConfigurationError: (InfraiError,),
    InvalidArgument: (InfraiError, ValueError),
    ClientClosedError: (InfraiError, RuntimeError),
    PaginationError: (InfraiError,),
    BudgetExceeded: (InfraiError,),
    DecodeError: (InfraiError,),
    TransportError: (InfraiError,),
    ConnectError: (TransportError,),
    TimeoutError: (TransportError, builtins.TimeoutError),
    APIError: (InfraiError,),
    BadRequestError: (APIError,),
    AuthenticationError: (APIError,),
    InsufficientCreditError: (APIError,),
    PermissionDeniedError: (APIError,),
    NotFoundError: (APIError,),
    ConflictError: (APIError,),
    RateLimitError: (APIError,),
    ServerError: (APIError,),
}
ATTEMPTS = (
    Attempt(started_at=datetime(2026, 1, 2, tzinfo=UTC), seconds=1.5, error="reset"),
    Attempt(started_at=datetime(2026, 1, 3, tzinfo=UTC), seconds=0.5, status=429, waited=2.0, request_id="r1"),
)
CONTEXT: dict[str, Any] = {
    "outcome": "maybe_applied",
    "attempts": ATTEMPTS,
    "idempotency_key": "k1",
    "capability": "db.project.create",
}
REFUSAL: dict[str, Any] = {
    "status": 418,
    "code": "TEAPOT",
    "hint": "use a cup",
    "request_id": "r1",
    "retryable": True,
}


def full(cls: type[InfraiError]) -> InfraiError:
    """An error of which every attribute differs from its default."""
    more: dict[str, Any] = REFUSAL if issubclass(cls, APIError) else {}
    if cls is InsufficientCreditError:
        more = more | {"checkout_url": "https://pay"}
    if cls is RateLimitError:
        more = more | {"retry_after": 1.5}
    if cls is DecodeError:
        more = {"path": "$.data.items[3].id", "status": 200}
    error = cls("it broke: é", **CONTEXT, **more)
    error.add_note("seen by a test")
    return error


ALL = [InfraiError, *BASES]
COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def test_the_tree_here_is_every_class_of_the_module() -> None:
    found = {cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, InfraiError)}
    assert found == set(ALL)


@pytest.mark.parametrize("cls", BASES)
def test_the_tree_is_the_documented_one(cls: type[InfraiError]) -> None:
    assert cls.__bases__ == BASES[cls]


def test_the_base_is_an_exception() -> None:
    assert InfraiError.__bases__ == (Exception,)


@pytest.mark.parametrize("cls", ALL)
def test_every_class_says_when_it_happens(cls: type[InfraiError]) -> None:
    assert cls.__dict__["__doc__"]


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("cls", ALL)
def test_a_copy_is_the_same_error(cls: type[InfraiError], way: str) -> None:
    error = full(cls)
    twin = COPIES[way](error)
    assert type(twin) is cls
    assert vars(twin) == vars(error)
    assert (twin.args, str(twin), repr(twin)) == (error.args, str(error), repr(error))
    assert twin.__notes__ == error.__notes__


@pytest.mark.parametrize("cls", ALL)
def test_two_rounds_change_nothing(cls: type[InfraiError]) -> None:
    error = full(cls)
    twin = copy.deepcopy(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error)))))
    assert (type(twin), vars(twin), twin.args, str(twin)) == (cls, vars(error), error.args, str(error))
    assert twin.__notes__ == error.__notes__


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("cls", ALL)
def test_an_error_without_anything_is_copied_too(cls: type[InfraiError], way: str) -> None:
    twin = COPIES[way](cls())
    assert (type(twin), vars(twin), str(twin)) == (cls, vars(cls()), str(cls()))


@pytest.mark.parametrize("cls", ALL)
def test_every_error_has_the_context_of_its_call(cls: type[InfraiError]) -> None:
    error = full(cls)
    assert (error.message, error.outcome, error.attempts, error.idempotency_key, error.capability) == (
        "it broke: é",
        "maybe_applied",
        ATTEMPTS,
        "k1",
        "db.project.create",
    )


@pytest.mark.parametrize("cls", ALL)
def test_without_a_call_nothing_was_sent(cls: type[InfraiError]) -> None:
    error = cls("x")
    assert (error.outcome, error.attempts, error.idempotency_key, error.capability) == ("not_sent", (), None, None)


@pytest.mark.parametrize("cls", [cls for cls in ALL if not issubclass(cls, APIError)])
def test_an_error_prints_one_line_that_names_the_capability(cls: type[InfraiError]) -> None:
    assert str(full(cls)) == "db.project.create: it broke: é"


@pytest.mark.parametrize("cls", [cls for cls in ALL if issubclass(cls, APIError)])
def test_a_refusal_prints_code_status_and_request_id(cls: type[InfraiError]) -> None:
    assert str(full(cls)) == "db.project.create: TEAPOT (418): it broke: é [request r1]"


def test_a_refusal_without_a_code_prints_the_status() -> None:
    assert str(APIError("no", status=502)) == "HTTP 502: no"


@pytest.mark.parametrize("cls", [cls for cls in ALL if issubclass(cls, APIError)])
def test_the_hint_is_a_note_in_the_traceback(cls: type[InfraiError]) -> None:
    lines = "".join(traceback.format_exception(cls("no", **REFUSAL))).splitlines()
    assert lines[-1] == "hint: use a cup"


def test_the_hint_is_shown_once_after_a_copy() -> None:
    twin = pickle.loads(pickle.dumps(APIError("no", **REFUSAL)))
    assert "".join(traceback.format_exception(twin)).count("use a cup") == 1


def test_without_a_hint_there_is_no_note() -> None:
    assert not hasattr(APIError("no", status=500), "__notes__")


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [(TimeoutError, builtins.TimeoutError), (InvalidArgument, ValueError), (ClientClosedError, RuntimeError)],
)
def test_an_error_is_caught_as_the_builtin_that_it_is(cls: type[InfraiError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match=r"^x$"):
        raise cls("x")


@pytest.mark.parametrize("status", range(500, 600))
def test_every_5xx_is_a_server_error(status: int) -> None:
    assert api_error_class(status, None) is ServerError


@pytest.mark.parametrize("status", sorted(set(range(300, 500)) - {400, 401, 402, 403, 404, 409, 422, 429}), ids=str)
def test_any_other_status_is_an_api_error(status: int) -> None:
    assert api_error_class(status, "FLAG_NOT_FOUND") is APIError


@given(st.text())
def test_any_message_survives_a_round(message: str) -> None:
    error = TimeoutError(message)
    twin = copy.deepcopy(error)
    assert (twin.message, twin.args) == (error.message, error.args)


@given(st.text())
def test_any_message_is_one_printable_line(message: str) -> None:
    assert APIError(message, status=400, code=message, hint=message).message.isprintable()
    assert len(str(APIError("x" * 5000, status=400))) < 1100


def test_an_attempt_is_a_value() -> None:
    assert ATTEMPTS[0] == Attempt(started_at=datetime(2026, 1, 2, tzinfo=UTC), seconds=1.5, error="reset")
    assert ATTEMPTS[0] != ATTEMPTS[1]
