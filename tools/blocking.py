"""Writes the resources of the blocking client: ``python -m tools.blocking``, after a change of an asynchronous one.

Editors, notebooks and linters show what a method's source says. The blocking methods are therefore written out, with
the signatures and docstrings of their asynchronous counterparts, which remain the only place to change them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

PACKAGE: Final = Path(__file__).parent.parent / "infrai_async"
TARGET: Final = PACKAGE / "sync" / "_resources"
_FACADE: Final = "infrai_async.sync._facade"
_MANY: Final = "infrai_async.sync._many"

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Imports: TypeAlias = dict[str, tuple[str, str | None]]
"""The names that a module imports, each with a module and its name there; ``None`` for the module itself."""


def main() -> None:
    """Write all blocking resources, and format them."""
    for name, text in modules().items():
        (TARGET / name).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(TARGET)], check=True)


def modules() -> dict[str, str]:
    """Return the text of each blocking module by its file name, before it is formatted."""
    sources = sorted((PACKAGE / "resources").glob("_[a-z]*.py"))
    return {path.name: _Module(path.stem, path.read_text(encoding="utf-8")).text() for path in sources}


class _Module:
    """One asynchronous module, and its translation."""

    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self._source = source
        self._lines = source.splitlines()
        self._tree = ast.parse(source)
        self._used: Imports = {name: ("infrai_async.resources", name)}
        self._known = self._used | dict(_imports(self._tree))
        # The classes that have a blocking form of the same name.
        self._known |= {"Cursor": (_FACADE, "Cursor"), "Inventory": (_MANY, "Inventory")}
        self._known |= {
            "Facade": (_FACADE, "Facade"),
            "inventory": (_MANY, "inventory"),
            "partial": ("functools", "partial"),
        }

    def text(self) -> str:
        """Return the blocking module."""
        resources = [node for node in self._tree.body if isinstance(node, ast.ClassDef) and _is_resource(node)]
        classes = "\n\n\n".join(map(self._class, resources))
        doc = (
            f'"""``client.{self._name[1:]}`` of the blocking client.\n\n'
            "Written by ``python -m tools.blocking`` from "
            f'``infrai_async/resources/{self._name}.py``: change that instead.\n"""'
        )
        return "\n\n".join([doc, "from __future__ import annotations", *self._imports(), "", classes]) + "\n"

    def _class(self, node: ast.ClassDef) -> str:
        self._use("Facade")
        parts = [f"class {node.name}(Facade[{self._name}.{node.name}]):\n    {self._segment(node.body[0])}"]
        functions = [one for one in node.body if isinstance(one, Function) and not one.name.startswith("_")]
        return "\n\n".join([*parts, *map(self._function, functions)])

    def _function(self, node: Function) -> str:
        head = "\n".join(self._lines[node.lineno - 1 : node.body[0].lineno - 1]).replace("async def", "def", 1)
        for name in _names(node.args, node.returns):
            self._use(name)
        decorators = [f"    @{ast.unparse(one)}\n" for one in node.decorator_list]
        if not decorators:
            body = "        __tracebackhide__ = True\n" + self._call(node)
        elif decorators == ["    @cached_property\n"] and isinstance(node.returns, ast.Name):
            self._use("cached_property")
            body = f"        return {node.returns.id}(self._async.{node.name}, self._runner)"
        else:
            raise self._unknown(node)
        return f"{''.join(decorators)}{head}\n        {self._segment(node.body[0])}\n{body}"

    def _call(self, node: Function) -> str:
        passed = [one.arg for one in node.args.args[1:]] + [f"{one.arg}={one.arg}" for one in node.args.kwonlyargs]
        method = f"self._async.{node.name}"
        if isinstance(node, ast.AsyncFunctionDef):
            self._use("partial")
            start = f"partial({', '.join([method, *passed])})" if passed else method
            return f"        return self._runner.run({start})"
        match node.returns:
            case ast.Subscript(ast.Name("Cursor")):
                return f"        return Cursor({method}({', '.join(passed)}), self._runner)"
            case ast.Name("Inventory"):
                self._use("inventory")
                passed.remove("progress=progress")  # reported in the reader's thread
                return f"        return inventory({method}({', '.join(passed)}), self._runner, progress)"
        raise self._unknown(node)

    def _unknown(self, node: Function) -> TypeError:
        return TypeError(
            f"{self._name}.py, line {node.lineno}: {node.name} is of a kind that tools.blocking does not know"
        )

    def _segment(self, node: ast.stmt) -> str:
        return ast.get_source_segment(self._source, node) or ""

    def _use(self, name: str) -> None:
        if name in self._known:
            self._used[name] = self._known[name]

    def _imports(self) -> Iterator[str]:
        """Yield the import statements, one block for the standard library and one for the package."""
        wanted: dict[str, set[str | None]] = {}
        for module, name in self._used.values():
            wanted.setdefault(module, set()).add(name)
        lines = [
            f"import {module}"
            if None in names
            else f"from {module} import {', '.join(sorted(map(str, names), key=_order))}"
            for module, names in sorted(wanted.items(), key=lambda one: (None not in one[1], one[0]))
        ]
        for ours in (False, True):
            if block := [line for line in lines if ("infrai_async" in line) is ours]:
                yield "\n".join(block)


def _imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, (alias.name, None)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, (node.module or "", alias.name)) for alias in node.names)


def _is_resource(node: ast.ClassDef) -> bool:
    return [ast.unparse(base) for base in node.bases] == ["Resource"]


def _names(*nodes: ast.AST | None) -> set[str]:
    return {one.id for node in nodes if node is not None for one in ast.walk(node) if isinstance(one, ast.Name)}


def _order(name: str) -> tuple[int, str]:
    """Return the key by which ruff sorts imported names: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


if __name__ == "__main__":
    main()
