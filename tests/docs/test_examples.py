"""The example notebook runs from top to bottom in a kernel, shows what it promises, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from support.patience import PATIENCE
from traitlets.config import Config

NOTEBOOK = Path(__file__).parent.parent.parent / "examples" / "notebook.ipynb"
# What the kernel, and nobody else, knows: put in as a cell of its own.
TELL = """
told = {
    "pid": gateway.pid,
    "data_dir": data_dir,
    "key": os.environ["INFRAI_API_KEY"],
    "uris": [each.connection_uri for each in [*projects, *branches]],
}
Path("told.json").write_text(json.dumps(told));
"""
SECRET = re.compile(r"ifr_[0-9a-f]{40,}|://[^:/\s]+:(?!\*\*\*@)[^/\s]+@")


def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


@pytest.fixture(scope="module")
def execute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs a notebook in a kernel that sees nothing of its user, and returns what the kernel told."""
    home = tmp_path_factory.mktemp("home")
    (home / "tmp").mkdir()

    def run(notebook: Any, *, outcome: AbstractContextManager[object] | None = None) -> dict[str, Any]:
        # A kernel is killed when its exit takes longer than this, and what it would have ended goes on.
        patient = Config({"KernelManager": {"shutdown_wait_time": 2 * PATIENCE}})
        where = {"metadata": {"path": home}}
        client = NotebookClient(notebook, timeout=100, kernel_name="python3", resources=where, config=patient)
        with outcome or nullcontext():
            client.execute()
        told = home / "told.json"
        text = told.read_text()
        told.unlink()
        return dict(json.loads(text))

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("INFRAI_", "JUPYTER", "IPYTHON", "MPL"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("TMPDIR", str(home / "tmp"))
        # Matplotlib says so on stderr when its first look at the fonts takes long.
        subprocess.run([sys.executable, "-c", "import matplotlib.pyplot"], check=True, capture_output=True)
        yield run


class Executed:
    """A notebook that was run, and what its kernel told of itself."""

    def __init__(self, notebook: Any, told: dict[str, Any]) -> None:
        self.text = nbformat.writes(notebook)
        self.told = told
        self._outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    def streams(self, name: str) -> list[str]:
        every = [output for outputs in self._outputs.values() for output in outputs]
        return [output.text for output in every if output.output_type == "stream" and output.name == name]

    def shown(self, cell: str, mime: str) -> list[Any]:
        return [output.data[mime] for output in self._outputs[cell] if mime in output.get("data", {})]


@pytest.fixture(scope="module")
def executed(execute: Callable[..., dict[str, Any]]) -> Executed:
    notebook = stored()
    assert notebook.cells[-1].id == "cleanup"
    notebook.cells.insert(-1, nbformat.v4.new_code_cell(TELL))
    return Executed(notebook, execute(notebook))


def is_open(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def check_gone(told: dict[str, Any]) -> None:
    """Nothing is left of gateway, Postgres and their files, those that lie elsewhere for root included."""
    with pytest.raises(ProcessLookupError):
        os.kill(told["pid"], 0)
    assert not is_open(told["uris"][0])
    assert not Path(told["data_dir"]).exists()
    owners = [owner.read_text() for owner in Path("/var/lib/infrai-async").glob("cluster-*/owner")]
    assert [owner for owner in owners if owner.startswith(told["data_dir"])] == []


def test_nothing_is_written_on_stderr(executed: Executed) -> None:
    assert executed.streams("stderr") == []
    assert executed.streams("stdout")


def test_results_are_tables(executed: Executed) -> None:
    for cell, rows in {"client": 2, "provision": 10, "page": 3, "collect": 12, "cdn": 5}.items():
        (markup,) = executed.shown(cell, "text/html")
        assert markup.count("<table") == 1
        (body,) = re.findall("<tbody>(.*)</tbody>", markup, re.DOTALL)
        assert body.count("<tr>") == rows, cell


def test_progress_is_the_notebooks_own_bar(executed: Executed) -> None:
    assert len(executed.shown("collect", "application/vnd.jupyter.widget-view+json")) == 1


@pytest.mark.parametrize("cell", ["plot", "costs"])
def test_figures_are_plotted(executed: Executed, cell: str) -> None:
    assert len(executed.shown(cell, "image/png")) == 1


def test_no_secret_is_shown(executed: Executed) -> None:
    passwords = [str(urlsplit(uri).password) for uri in executed.told["uris"]]
    assert len(set(passwords)) == 4 + 12
    secrets = {executed.told["key"], *passwords, *map(unquote, passwords)}
    assert [secret for secret in secrets if secret in executed.text] == []
    assert "://ifr_" in executed.text
    assert SECRET.search(executed.text) is None


def test_it_leaves_nothing_behind(executed: Executed) -> None:
    check_gone(executed.told)


def test_nor_does_it_when_a_cell_fails(execute: Callable[..., dict[str, Any]]) -> None:
    notebook = stored()
    after = [cell.id for cell in notebook.cells].index("provision") + 1
    notebook.cells[after:] = [nbformat.v4.new_code_cell(TELL + "\n1 / 0")]
    check_gone(execute(notebook, outcome=pytest.raises(CellExecutionError, match="ZeroDivisionError")))


def test_it_is_stored_as_it_was_before_any_run() -> None:
    notebook = stored()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
