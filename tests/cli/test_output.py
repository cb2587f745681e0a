"""What a terminal shows where the pretty libraries are missing, and how errors read."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from infrai_async import NotFoundError
from infrai_async.cli._output import describe, plain_table

from .conftest import STRICT, Terminal

SHOW = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from infrai_async.cli._output import write_table
from infrai_async.cli._progress import progress
with progress("counting", 4) as advance:
    for _ in range(3):
        advance()
write_table([{"name": "one", "count": 1}, {"name": "[bold]two", "count": None}])
"""


@pytest.mark.parametrize(
    ("missing", "bar"),
    [
        ((), r"counting [^\n]*━[^\n]*3/4"),
        (("rich",), r"counting: +75%\|"),
        (("rich", "tqdm"), r"counting \[#{22} {8}\] 3/4"),
    ],
    ids=["rich", "tqdm", "plain"],
)
def test_bars_and_tables_come_from_what_is_installed(
    terminal: Callable[..., Terminal], missing: tuple[str, ...], bar: str
) -> None:
    shown = terminal(*STRICT, "-c", SHOW, *missing)
    assert shown.wait() == 0, shown.shown
    assert re.search(bar, shown.shown)
    assert re.search(r"one .*1", shown.shown)
    assert "[bold]two" in shown.shown


def test_a_plain_table_is_aligned() -> None:
    rows = [{"name": "a", "count": 5, "note": ""}, {"name": "bcdef", "count": 12345, "note": None}]
    assert plain_table(rows).splitlines() == [
        "name   count  note",
        "-----  -----  ----",
        "a          5",
        "bcdef  12345",
    ]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotFoundError("gone", status=404, code="X", hint="look\nhere"), "X (404): gone; hint: look here"),
        (ExceptionGroup("several", [OSError("no disk"), KeyError("a")]), "OSError: no disk"),
        (ValueError("in postgresql://me:hush@host/db"), "ValueError: in postgresql://me:***@host/db"),
    ],
    ids=["with its hint", "the first of several", "without a password"],
)
def test_an_error_reads_in_one_line(error: Exception, line: str) -> None:
    assert describe(error) == line
