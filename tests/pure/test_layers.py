"""Which file may import which, read from the source; and what importing costs, seen from a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import infrai_async

ROOT = Path(infrai_async.__file__).parent
PACKAGE = "infrai_async"
PURE = [
    "_display.html",
    "capabilities",
    "models",
    "errors",
    "_protocol._codegen",
    "_protocol.reader",
    "_protocol.request",
    "_protocol.response",
    "_protocol.decode",
    "_protocol.json",
    "_protocol.retry",
    "_protocol.rate",
    "_protocol.scopes",
    "_protocol.flow",
    "_protocol.config",
    "_transport.stats",
    "_observability.events",
    "_observability.reporter",
]
ABOVE = ("infrai_async.local", "infrai_async.cli")
WINGS = {f"{PACKAGE}.{wing}" for wing in ("_display", "_observability", "_protocol", "_transport")}
IMPURE = {"asyncio", "aiohttp", "anyio"}
GATEWAY: dict[str, set[str]] = {
    "_errors": set(),
    "_files": set(),
    "_locks": set(),
    "postgres": {"_errors", "_files", "_locks"},
    "http": {"_errors"},
    "targeting": {"_errors"},
    "state": {"postgres"},
    "objects": {"http", "state"},
    "services": {"objects", "targeting"},
    "edge": {"services"},
    "pages": {"services"},
    "faults": {"services"},
    "lifecycle": {"services"},
    "objects_endpoint": {"services"},
    "_app": {"faults"},
    "_gateway": {"_app", "edge", "lifecycle", "objects_endpoint", "pages"},
}
"""Each wing of the gateway, or module beside them, and those right below it; it may import these and what they may."""


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path: Path) -> set[str]:
    """Every module that a file imports when it runs, anywhere in it, by absolute name."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module, names, level):
                above = path.relative_to(ROOT.parent).parent.parts
                base = ".".join(above[: len(above) + 1 - level]) if level else ""
                source = ".".join(part for part in (base, module) if part)
                found |= {source, *(f"{source}.{alias.name}" for alias in names if is_module(f"{source}.{alias.name}"))}
        children = ast.iter_child_nodes(node)
        waiting += [child for child in children if not (isinstance(child, ast.If) and is_type_checking(child))]
    return found


def is_module(name: str) -> bool:
    return file_of(name) is not None


def file_of(name: str) -> Path | None:
    """The file of a module of the package, ``None`` for anything else."""
    head, *parts = name.split(".")
    if head != PACKAGE:
        return None
    place = ROOT.joinpath(*parts)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
GRAPH = {name: imports(path) for name, path in FILES.items()}


def reach(name: str) -> set[str]:
    """Everything that a module imports, through modules of the package too."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for other in GRAPH.get(waiting.pop(), set()) - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == PACKAGE}


def test_the_graph_is_really_read() -> None:
    assert {"aiohttp", "asyncio", "infrai_async._protocol.flow"} <= GRAPH["infrai_async._transport.pool"]
    assert "infrai_async.capabilities" in reach("infrai_async._client")
    assert "infrai_async._client" not in GRAPH["infrai_async"]


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_does_no_io(module: str) -> None:
    assert {name.split(".")[0] for name in reach(f"{PACKAGE}.{module}")}.isdisjoint(IMPURE)


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_reaches_pure_modules_only(module: str) -> None:
    allowed = {PACKAGE, f"{PACKAGE}._version", *WINGS, *(f"{PACKAGE}.{pure}" for pure in PURE)}
    assert own(reach(f"{PACKAGE}.{module}")) <= allowed


def test_models_and_errors_stand_below_everything() -> None:
    assert own(GRAPH["infrai_async._display.html"]) == own(GRAPH["infrai_async.errors"]) == set()
    assert own(GRAPH["infrai_async.models"]) == {"infrai_async._display.html"}


def test_the_table_stands_on_the_models_alone() -> None:
    assert own(reach("infrai_async.capabilities")) == {"infrai_async.models", "infrai_async._display.html"}


def test_the_gateway_shares_the_table_and_the_models_and_nothing_else() -> None:
    found = {
        (name, other)
        for name, others in GRAPH.items()
        if name.startswith("infrai_async.local")
        for other in own(others)
        if not other.startswith("infrai_async.local")
    }
    assert {other for _, other in found} <= {"infrai_async.capabilities", "infrai_async.models"}, found


def test_only_the_command_line_stands_above_the_gateway() -> None:
    found = {
        (name, other)
        for name, others in GRAPH.items()
        if not name.startswith(ABOVE)
        for other in others
        if other.startswith("infrai_async.local")
    }
    assert found == set()


def wing(name: str) -> str:
    """The wing of a module of the gateway; the package itself belongs to its only name, the gateway."""
    return ("infrai_async.local._gateway" if name == "infrai_async.local" else name).split(".")[2]


def below(wing: str) -> set[str]:
    return GATEWAY[wing].union(*map(below, GATEWAY[wing]))


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if name.startswith("infrai_async.local")])
def test_a_wing_of_the_gateway_imports_what_lies_below_it(name: str) -> None:
    there = {other for other in GRAPH[name] if other.startswith("infrai_async.local.")}
    assert {wing(other) for other in there} <= {wing(name)} | below(wing(name))
    assert name not in reach(name)


def test_nothing_below_the_client_points_back_to_it() -> None:
    below = ["_transport.pool", "_listing.cursor", "_dispatch", "resources"]
    assert not any("infrai_async._client" in reach(f"{PACKAGE}.{module}") for module in below)


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if not name.startswith(ABOVE)])
def test_no_module_of_the_client_is_in_a_cycle(name: str) -> None:
    assert name not in reach(name)


def depth_of_tries(node: ast.AST) -> int:
    inner = max((depth_of_tries(child) for child in ast.iter_child_nodes(node)), default=0)
    return inner + isinstance(node, ast.Try)


def test_the_driver_of_calls_can_be_read_at_a_glance() -> None:
    tree = ast.parse(FILES["infrai_async._transport.pool"].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert any(node.name == "run" for node in functions)
    for node in functions:
        assert (node.end_lineno or 0) - node.lineno < 40, node.name
        assert depth_of_tries(node) <= 2, node.name


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh process has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(run.stdout.split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    heavy = {"aiohttp", "attr", "attrs", "cattr", "cattrs", "anyio", "asyncio", "ssl", "orjson", "json"}
    loaded = loaded_after("import infrai_async")
    assert heavy.isdisjoint(loaded)
    assert {name for name in loaded if name.startswith("infrai_async")} == {"infrai_async", "infrai_async._version"}


def test_importing_the_pure_core_loads_no_event_loop() -> None:
    statement = "\n".join(f"import infrai_async.{module}" for module in PURE)
    loaded = loaded_after(statement)
    assert {f"infrai_async.{module}" for module in PURE} <= loaded
    assert IMPURE.isdisjoint(loaded)


def test_only_notebooks_load_the_tables() -> None:
    loaded = loaded_after("import infrai_async.models, infrai_async._client")
    assert "infrai_async._display.html" not in loaded


@pytest.mark.parametrize("name", ["NotFoundError", "Project", "CAPABILITIES", "RetryPolicy", "UNSET"])
def test_using_a_pure_name_loads_no_http(name: str) -> None:
    assert IMPURE.isdisjoint(loaded_after(f"import infrai_async\ninfrai_async.{name}"))


def test_the_client_loads_no_gateway() -> None:
    loaded = loaded_after("from infrai_async import AsyncInfrai")
    assert not any(name.startswith("infrai_async.local") for name in loaded)
    assert {"sqlalchemy", "asyncpg", "rich"}.isdisjoint(loaded)
