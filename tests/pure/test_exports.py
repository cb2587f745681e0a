"""What ``infrai_async`` offers: one sorted list, and every name on it is there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import infrai_async
from infrai_async import errors, models

NAMES = infrai_async.__all__
# The public names that users rely on.
PROMISED = {
    "APIError",
    "Ack",
    "AsyncInfrai",
    "Attempt",
    "AttemptSent",
    "AuthenticationError",
    "BadRequestError",
    "Branch",
    "Bucket",
    "BudgetExceeded",
    "CacheStats",
    "CallFinished",
    "CallStarted",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "Cursor",
    "DecodeError",
    "DiscoveryIndex",
    "Distribution",
    "Event",
    "FanOut",
    "Flag",
    "FlagRule",
    "FlagValue",
    "InfraiError",
    "InsufficientCreditError",
    "InvalidArgument",
    "NotFoundError",
    "Page",
    "PaginationError",
    "PermissionDeniedError",
    "PresignedUrl",
    "Project",
    "ProjectInventory",
    "PurgeResult",
    "RateLimitError",
    "RetryPolicy",
    "Retrying",
    "RolloutConfig",
    "ServerError",
    "Snapshot",
    "Throttled",
    "TimeoutError",
    "TransportError",
    "Variant",
    "fan_out",
}


def isort_key(name: str) -> tuple[int, list[tuple[int, int | str]]]:
    """The order of ruff's RUF022: constants, then classes, then the rest, each with numbers in their natural order."""
    group = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    pieces = re.split(r"(\d+)", name)
    return group, [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in pieces if piece]


def imported_for_type_checkers() -> set[str]:
    tree = ast.parse(Path(infrai_async.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_the_list_is_sorted() -> None:
    assert sorted(NAMES, key=isort_key) == NAMES


def test_no_name_is_listed_twice() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    value = getattr(infrai_async, name)
    assert value is not None
    assert getattr(value, "__name__", name) == name


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_every_promised_name_is_listed(name: str) -> None:
    assert name in NAMES


def test_type_checkers_see_the_same_names() -> None:
    assert imported_for_type_checkers() | {"__version__"} == set(NAMES)


def test_a_star_import_gives_the_list() -> None:
    scope: dict[str, object] = {}
    exec("from infrai_async import *", scope)
    assert set(scope) - {"__builtins__"} == set(NAMES)


@pytest.mark.parametrize("module", [models, errors], ids=lambda module: module.__name__)
def test_every_public_class_of_models_and_errors_is_listed(module: object) -> None:
    own = {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__.startswith(module.__name__) and not name.startswith("_")  # type: ignore[attr-defined]
    }
    assert own - set(NAMES) == set()


def test_dir_shows_every_name() -> None:
    assert set(NAMES) <= set(dir(infrai_async))


@pytest.mark.parametrize("name", ["Nonsense", "_pool_", "api_error_class", "Outcome"])
def test_any_other_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"^module 'infrai_async' has no attribute '{name}'$"):
        getattr(infrai_async, name)


@pytest.mark.parametrize("cls", [errors.NotFoundError, models.Project])
def test_a_name_is_the_same_object_from_everywhere(cls: type) -> None:
    assert getattr(infrai_async, cls.__name__) is cls


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([abrc.]+\w*)?", infrai_async.__version__)


def test_the_errors_module_lists_what_it_defines() -> None:
    defined = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined | {"Outcome", "api_error_class"} == set(errors.__all__)
    assert sorted(errors.__all__, key=isort_key) == errors.__all__
