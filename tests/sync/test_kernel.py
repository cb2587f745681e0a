"""A notebook, run by a real kernel: a loop runs there already, and the kernel's interrupt is a real SIGINT."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.oracle import SMALL, Reply, Seen, answer, refuse
from support.patience import LONG, SOON
from sync.children import Attentive, by_name

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

BOUND = 200.0  # seconds for the kernel: nearly all of it is its start
CELLS = {
    "build": """
from infrai_async import AsyncInfrai, Infrai
client = Infrai("k", base_url=URL)
""",
    "call": 'client.db.project.get("p").id',
    "model": 'client.db.project.get("p")',
    "loop": "[project.name for project in client.db.project.list()]",
    "collect": "client.db.project.list().collect()",
    "await": """
async with AsyncInfrai("k", base_url=URL) as other:
    mine = await other.db.project.get("awaited")
mine.id
""",
    "both": """
import asyncio
await asyncio.sleep(0)
client.db.project.get("p").id
""",
    "error": 'mine = 1\nclient.db.project.get("missing")',
    "error in a loop": 'for project in client.db.project.list(cursor="missing"):\n    pass',
    "error in collect": 'client.db.project.list(cursor="missing").collect()',
    "error in next": 'next(client.db.project.list(cursor="missing"))',
    "error in pages": 'for page in client.db.project.list(cursor="missing").pages():\n    pass',
    "error of an argument": "client.db.project.get(None)",
    "interrupted": 'client.db.project.get("slow")',
    "next": 'client.db.project.get("next").id',
    "freed": "client.stats.in_flight",
    "interrupted loop": 'for project in client.db.project.list(cursor="never"):\n    pass',
    "next list": "len(client.db.project.list().collect())",
    "close": "client.close()",
    "closed": 'client.db.project.get("p")',
}
ERRORS = [name for name in CELLS if name.startswith("error")]


def reply(seen: Seen) -> Reply:
    if "missing" in seen.target:
        return refuse(404, "NO_SUCH_PROJECT")
    if "cursor=never" in seen.target:
        return answer({"items": [], "next_cursor": None}, delay=LONG)
    if seen.path.endswith("/list"):
        second = "cursor=" in seen.target
        return answer({"items": [SMALL, SMALL], "next_cursor": None if second else "second"})
    return by_name(seen)


class Notebook:
    """A notebook that was run: the outputs of its cells, and how long an interrupted one took to end."""

    def __init__(self, url: str, oracle: Attentive) -> None:
        sources = {**CELLS, "build": CELLS["build"].replace("URL", repr(url)), "await": CELLS["await"]}
        sources["build"] += f"URL = {url!r}"
        self._cells = {name: nbformat.v4.new_code_cell(source.strip()) for name, source in sources.items()}
        self._notebook = nbformat.v4.new_notebook(cells=list(self._cells.values()))
        self._oracle = oracle
        self.ended_after: dict[str, float] = {}

    async def run(self, home: str) -> None:
        runner = nbclient.NotebookClient(self._notebook, timeout=100, kernel_name="python3", allow_errors=True)
        environment = os.environ | {"HOME": home, "IPYTHONDIR": home, "NO_COLOR": "1"}
        async with runner.async_setup_kernel(env=environment):
            for index, (name, cell) in enumerate(self._cells.items()):
                known = len(self._oracle.seen)
                running = asyncio.create_task(runner.async_execute_cell(cell, index))
                if name.startswith("interrupted"):
                    while len(self._oracle.seen) == known:
                        await asyncio.sleep(0.002)
                    began = time.monotonic()
                    await runner.km.interrupt_kernel()
                    await running
                    self.ended_after[name] = time.monotonic() - began
                await running

    def outputs(self, name: str) -> list[Any]:
        return list(self._cells[name]["outputs"])

    def shown(self, name: str) -> dict[str, str]:
        """What the one result of a cell is, by media type."""
        (output,) = self.outputs(name)
        assert output["output_type"] == "execute_result", output
        return dict(output["data"])

    def error(self, name: str) -> tuple[str, str]:
        """The name of the one error of a cell, and what is shown of it, without its colours."""
        (output,) = self.outputs(name)
        assert output["output_type"] == "error", output
        return output["ename"], re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"]))


@pytest.fixture(scope="module")
def oracle() -> Iterator[Attentive]:
    with Attentive(reply) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def notebook(oracle: Attentive, tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    notebook = Notebook(oracle.url, oracle)
    asyncio.run(asyncio.wait_for(notebook.run(str(tmp_path_factory.mktemp("home"))), BOUND))
    return notebook


def test_a_cell_builds_a_client_without_a_word(notebook: Notebook) -> None:
    assert notebook.outputs("build") == []


def test_a_cell_calls(notebook: Notebook) -> None:
    assert notebook.shown("call")["text/plain"] == "'p'"


def test_a_cell_lists(notebook: Notebook) -> None:
    assert notebook.shown("loop")["text/plain"] == "['shop', 'shop', 'shop', 'shop']"


@pytest.mark.parametrize("name", ["model", "collect"])
def test_a_result_is_shown_as_a_table_without_its_password(notebook: Notebook, name: str) -> None:
    shown = notebook.shown(name)
    assert "<table" in shown["text/html"]
    assert "shop" in shown["text/html"]
    assert "secret" not in str(shown)


def test_the_asynchronous_client_is_awaited_in_the_next_cell(notebook: Notebook) -> None:
    assert notebook.shown("await")["text/plain"] == "'awaited'"


def test_a_cell_that_awaits_may_call_the_blocking_client_too(notebook: Notebook) -> None:
    assert notebook.shown("both")["text/plain"] == "'p'"


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_shown_with_the_line_of_the_cell_and_without_what_lies_below(notebook: Notebook, name: str) -> None:
    kind, shown = notebook.error(name)
    assert kind == ("InvalidArgument" if name == "error of an argument" else "NotFoundError")
    assert re.search(r"^-+> [12] .*client\.db\.project\.", shown, re.MULTILINE)
    assert shown.rstrip().splitlines()[-1].startswith(f"{kind}: db.project.")
    files = re.findall(r"^File (\S+?):\d+", shown, re.MULTILINE)
    assert len(files) <= 1  # IPython shows the last frame of any traceback, hidden or not
    assert "skipping hidden" in shown


@pytest.mark.parametrize("name", ["interrupted", "interrupted loop"])
def test_interrupting_the_kernel_ends_the_call_at_once(notebook: Notebook, name: str) -> None:
    assert notebook.error(name)[0] == "KeyboardInterrupt"
    assert notebook.ended_after[name] < SOON


def test_an_interrupted_call_is_withdrawn_at_the_server(notebook: Notebook, oracle: Attentive) -> None:
    assert len(oracle.hung_up) == 2
    assert notebook.shown("freed")["text/plain"] == "0"


@pytest.mark.parametrize(("name", "result"), [("next", "'next'"), ("next list", "4")])
def test_the_cell_after_an_interrupted_one_works(notebook: Notebook, name: str, result: str) -> None:
    assert notebook.shown(name)["text/plain"] == result


def test_a_client_that_was_closed_says_so(notebook: Notebook) -> None:
    assert notebook.outputs("close") == []
    assert notebook.error("closed")[0] == "ClientClosedError"
