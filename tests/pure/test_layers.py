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
IMPURE = {"asyncio", "aiohttp", "anyio"}

# Which wing may import which, and so everything that those may. ``__init__`` is the package itself, with its public
# names. A new wing gets its line here.
CLIENT = {
    "errors": "",
    "_event_loop": "errors",
    "_misuse": "",
    "_running": "",
    "_version": "",
    "__init__": "_version",
    "_display": "errors",
    "models": "_display errors",
    "capabilities": "models",
    "_listing": "models errors _display _event_loop _misuse",
    "_protocol": "capabilities models errors",
    "_observability": "_protocol",
    "_transport": "_protocol _observability _event_loop",
    "_dispatch": "_transport _listing _protocol",
    "resources": "_dispatch",
    "_client": "resources _version",
    "_webhooks": "errors",
    "sync": "_client _running",
    "ext": "sync",
    "cli": "__init__ errors models local",
    "__main__": "cli",
    "_pyinstaller": "",
}
GATEWAY = {
    "_errors": "models",
    "_files": "",
    "_locks": "",
    "postgres": "_errors _files _locks",
    "http": "_errors capabilities",
    "targeting": "_errors capabilities",
    "state": "postgres",
    "objects": "http state _files",
    "services": "http objects postgres state targeting",
    "objects_endpoint": "services http state objects",
    "edge": "services http state",
    "pages": "services http state",
    "faults": "services http state",
    "lifecycle": "services http state postgres",
    "_app": "faults http services",
    "_gateway": "_app edge faults http lifecycle objects_endpoint pages services _running",
    "__init__": "_gateway",
}
# What does no I/O: it imports neither asyncio, aiohttp nor anyio, nor anything that does.
PURE = ["errors", "_misuse", "models", "capabilities", "_display", "_protocol", "_observability", "local.targeting"]

MOST_LINES_OF_A_MODULE = 500
MOST_LINES_OF_A_FUNCTION = 60


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path: Path, *, for_types: bool = False) -> set[str]:
    """Every module that a file imports, anywhere in it, by absolute name; those for type checkers only if asked for."""
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
        waiting += [c for c in children if for_types or not (isinstance(c, ast.If) and is_type_checking(c))]
    return found - {name_of(path)}


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


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if not path.name.startswith("hook-")}
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


def wing_of(module: str) -> str:
    """The wing of a module of the package; one of the gateway's has ``local.`` before it."""
    _, *parts = module.split(".")
    if parts[:1] == ["local"]:
        return f"local.{parts[1] if parts[1:] else '__init__'}"
    return parts[0] if parts else "__init__"


def allowed() -> dict[str, set[str]]:
    """What each wing may import: what the tables say, what those may import, and itself."""
    direct = {wing: set(may.split()) for wing, may in CLIENT.items()}
    below = {"models", "capabilities", "_running"}
    for wing, may in GATEWAY.items():
        direct[f"local.{wing}"] = {name if name in below else f"local.{name}" for name in may.split()}
    direct["cli"] = direct["cli"] - {"local"} | {"local.__init__"}
    closed: dict[str, set[str]] = {}
    while len(closed) < len(direct):
        ready = [wing for wing in direct if wing not in closed and direct[wing] <= closed.keys()]
        assert ready, f"a circle between {sorted(direct.keys() - closed.keys())}"
        for wing in ready:
            closed[wing] = {wing}.union(direct[wing], *(closed[name] for name in direct[wing]))
    # The command line stands on public names, not on what lies below those.
    return closed | {"cli": direct["cli"] | {"cli", "_version"}}


ALLOWED = allowed()


def test_the_graph_is_really_read() -> None:
    assert {"aiohttp", "asyncio", "infrai_async._protocol.flow"} <= GRAPH["infrai_async._transport.pool"]
    assert "infrai_async.capabilities.db" in reach("infrai_async._client")
    assert "infrai_async._client" not in GRAPH["infrai_async"]
    assert "infrai_async._client" in imports(FILES["infrai_async"], for_types=True)


def test_every_wing_is_in_the_tables() -> None:
    assert {wing_of(name) for name in FILES} == ALLOWED.keys()


@pytest.mark.parametrize("wing", sorted(ALLOWED))
def test_a_wing_imports_only_what_its_line_allows(wing: str) -> None:
    # What is imported for type checkers counts too, but for the package's list of public names.
    found = {
        (name, other)
        for name, path in FILES.items()
        if wing_of(name) == wing
        for other in own(imports(path, for_types=wing != "__init__"))
        if wing_of(other) not in ALLOWED[wing] and other != PACKAGE
    }
    assert found == set()


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_module_is_in_a_circle(name: str) -> None:
    assert name not in reach(name)


@pytest.mark.parametrize("wing", PURE)
def test_what_is_pure_does_no_io(wing: str) -> None:
    modules = [name for name in FILES if f"{name}.".startswith(f"{PACKAGE}.{wing}.")]
    assert modules
    for name in modules:
        assert {other.split(".")[0] for other in reach(name)}.isdisjoint(IMPURE), name


def test_the_client_and_the_gateway_share_the_table_the_models_and_who_runs_alone() -> None:
    shared = {"capabilities", "models", "_running"}
    for name in FILES:
        here = wing_of(name).startswith("local.")
        others = {wing_of(other) for other in own(GRAPH[name])} - ({"__init__"} | shared)
        if wing_of(name) != "cli":
            assert all(other.startswith("local.") == here for other in others), name


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_module_and_its_functions_can_be_read(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES_OF_A_MODULE
    long = {
        node.name: length
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := code_lines(node, text)) > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> int:
    """The lines of a function without its docstring and without lines that are comments alone."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    lines = source.splitlines()[function.lineno - 1 : function.end_lineno]
    comments = sum(line.lstrip().startswith("#") for line in lines)
    return len(lines) - comments - ((first.end_lineno or 0) - first.lineno + 1) * documented


def depth_of_tries(node: ast.AST) -> int:
    inner = max((depth_of_tries(child) for child in ast.iter_child_nodes(node)), default=0)
    return inner + isinstance(node, ast.Try)


def test_the_driver_of_calls_can_be_read_at_a_glance() -> None:
    source = FILES["infrai_async._transport.pool"].read_text(encoding="utf-8")
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert any(node.name == "run" for node in functions)
    for node in functions:
        assert code_lines(node, source) <= 40, node.name
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
    pure = [name for name in FILES if wing_of(name) in PURE and not name.startswith("infrai_async.local")]
    loaded = loaded_after("\n".join(f"import {name}" for name in pure))
    assert set(pure) <= loaded
    assert IMPURE.isdisjoint(loaded)


def test_only_notebooks_load_the_tables() -> None:
    loaded = loaded_after("import infrai_async.models, infrai_async._client")
    assert "infrai_async._display.html" not in loaded


@pytest.mark.parametrize(
    "name", ["NotFoundError", "Project", "CAPABILITIES", "RetryPolicy", "UNSET", "CallFinished", "Budget", "Stats"]
)
def test_using_a_pure_name_loads_no_http(name: str) -> None:
    assert IMPURE.isdisjoint(loaded_after(f"import infrai_async\ninfrai_async.{name}"))


@pytest.mark.parametrize("name", ["fan_out", "Cursor", "Inventory"])
def test_listing_loads_no_http(name: str) -> None:
    assert "aiohttp" not in loaded_after(f"import infrai_async\ninfrai_async.{name}")


def test_the_client_loads_no_gateway() -> None:
    loaded = loaded_after("from infrai_async import AsyncInfrai")
    assert not any(name.startswith("infrai_async.local") for name in loaded)
    assert {"sqlalchemy", "asyncpg", "rich"}.isdisjoint(loaded)
