"""What editors, notebooks and linters read: the source of the blocking client, which nothing has run."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jedi
import pytest

from infrai_async import Infrai
from tools import blocking

from .test_parity import METHODS

# Right in every line; a linter that cannot follow the source calls some of them errors.
PROGRAM = """
from infrai_async import AsyncInfrai, Infrai, fan_out

with Infrai() as client:
    project = client.db.project.create(name="shop", region="us-east-1")
    cursor = client.db.branch.list(project_id=project.id, prefetch=1)
    print([branch.branch_name for branch in cursor], next(cursor).id, cursor.next_cursor)
    print([page.items for page in cursor.pages()], cursor.page().items[0], cursor.collect(max_items=5)[0].id)
    print(cursor.to_records(progress=True)[0]["id"], cursor.collect()[1:][0].branch_name)
    print(client.storage.object.presign(bucket="b", key="k", method="PUT").url, client.flags.is_enabled("x"))
    print(client.cdn.cache.purge(distribution_id="d", paths=["/"]).purge_id, client.flags.get_all()["x"])
    with client.fan_out(client.db.project.list(), lambda one: client.db.branch.list(project_id=one.id)) as pairs:
        print(next(pairs)[1])
        for parent, child in pairs:
            print(parent.name, child.branch_name)
    for entry in client.db.inventory(checkpoint="inventory.jsonl", concurrency=4):
        print(entry.project.name, len(entry.branches))
    quick = client.with_options(timeout=5)
    print(quick.call("db.project.get", {"id": "p"}, idempotency_key="k"), quick.stats.calls)
    with client.budget(usd=1) as spent, client.deadline(30), client.operation("deploy"):
        print(spent.usd)
    client.close(grace=1)


async def main():
    async with AsyncInfrai() as other:
        one = await other.db.project.create(name="shop", region="us-east-1")
        branches = other.db.branch.list(project_id=one.id, prefetch=1)
        print([branch.branch_name async for branch in branches], (await anext(branches)).id)
        print([page.items async for page in branches.pages()], (await branches.page()).items[0])
        print((await branches.collect(max_items=5))[0].id, (await branches.to_records())[0]["id"])
        async with fan_out(other.db.project.list(), lambda p: other.db.branch.list(project_id=p.id)) as listed:
            async for parent_, child_ in listed:
                print(parent_.name, child_.branch_name)
        async for item in other.db.inventory(concurrency=4):
            print(item.project.name)
        print(await other.with_options(timeout=5).call("db.project.get", {"id": "p"}))
        await other.aclose(grace=1)
"""
WRONG = """
from infrai_async import Infrai

with Infrai() as client:
    print(client.db.project.create(name="shop").id, client.db.branch.list(project="p"))
"""


def syntax(text: str) -> str:
    """The syntax tree of a module, whatever the order of its imports and the length of its lines."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names.sort(key=lambda alias: alias.name)
    return "\n".join(sorted(ast.dump(node) for node in tree.body))


@pytest.mark.parametrize("name", blocking.modules())
def test_the_blocking_resources_are_what_the_tool_writes(name: str) -> None:
    committed = (blocking.TARGET / name).read_text(encoding="utf-8")
    assert syntax(committed) == syntax(blocking.modules()[name]), "run: python -m tools.blocking"


def test_no_module_of_the_blocking_resources_is_left_over() -> None:
    assert {path.name for path in blocking.TARGET.glob("*.py")} == {*blocking.modules(), "__init__.py"}


@pytest.mark.parametrize(("path", "twin", "facade"), METHODS, ids=[path for path, _, _ in METHODS])
def test_the_source_of_a_method_names_its_parameters(path: str, twin: Any, facade: Any) -> None:
    (written,) = ast.parse(textwrap.dedent(inspect.getsource(facade))).body
    assert isinstance(written, ast.FunctionDef)
    named = [one.arg for one in [*written.args.posonlyargs, *written.args.args, *written.args.kwonlyargs]]
    assert named == list(inspect.signature(facade).parameters)
    assert ast.get_docstring(written) == inspect.getdoc(facade) or path.rpartition(".")[2].startswith("__")


@pytest.mark.parametrize("path", [path for path, _, _ in METHODS if path.startswith("client.") and "__" not in path])
def test_an_editor_shows_what_a_method_takes(path: str) -> None:
    called = f"from infrai_async import Infrai\nclient = Infrai()\n{path}("
    (shown,) = jedi.Script(called.replace(".aclose", ".close")).get_signatures()
    assert shown.docstring(raw=True)
    owner: Any = Infrai("k")
    for part in path.replace(".aclose", ".close").split(".")[1:]:
        owner = getattr(owner, part)
    assert [one.name for one in shown.params] == list(inspect.signature(owner).parameters)


def test_an_editor_completes_what_a_call_and_a_listing_give() -> None:
    for given in ("client.db.project.create(name='a').", "client.db.project.list().collect()[0]."):
        script = jedi.Script(f"from infrai_async import Infrai\nclient = Infrai()\n{given}")
        assert "connection_uri" in {one.name for one in script.complete()}


def lint(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "program.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pylint", "--errors-only", "--score=n", "--msg-template={symbol}", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if not line.startswith("***")]


def test_a_linter_finds_no_error_in_a_right_program_and_finds_one_in_a_wrong_program(tmp_path: Path) -> None:
    assert lint(tmp_path, PROGRAM) == []
    assert "unexpected-keyword-arg" in lint(tmp_path, WRONG)
