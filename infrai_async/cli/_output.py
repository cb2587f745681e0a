"""Output of the commands: results on stdout, as JSON lines or tables; everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from importlib.util import find_spec


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_KEY = 3


class UsageError(Exception):
    """The command cannot run with these arguments, or with the installed packages."""


def on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def write_json(record: Mapping[str, object]) -> None:
    """Write one JSON line and flush it."""
    print(json.dumps(record), flush=True)


def write_step(name: str, text: str, **facts: object) -> None:
    """Write the result of a step: ``text`` on a terminal, otherwise ``facts`` as JSON."""
    if on_terminal():
        print(f"{name + ':':<10} {text}", flush=True)
    else:
        write_json({"step": name, **facts})


def write_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Write records with the same fields: a table on a terminal, otherwise JSON lines."""
    if not on_terminal():
        for row in rows:
            write_json(row)
    elif rows and find_spec("rich"):
        _rich_table(rows)
    elif rows:
        print(plain_table(rows), flush=True)


def _rich_table(rows: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name, value in rows[0].items():
        table.add_column(Text(name), justify="right" if _is_number(value) else "left")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    Console().print(table)


def plain_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return an ASCII table; columns whose first value is a number are right-aligned."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = [">" if _is_number(value) else "<" for value in rows[0].values()]
    shapes = list(zip(aligned, widths, strict=True))
    lines = [
        "  ".join(f"{cell:{align}{width}}" for cell, (align, width) in zip(line, shapes, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def complain(problem: BaseException | str) -> None:
    """Write a one-line error message to stderr, if it is still open."""
    note(f"infrai-async: {problem if isinstance(problem, str) else describe(problem)}")


def note(text: str) -> None:
    """Write a line to stderr, if it is still open: a closed terminal must not prevent clearing up."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def describe(error: BaseException) -> str:
    """Return an error as one line, with its notes and without passwords."""
    from infrai_async.errors import InfraiError
    from infrai_async.models import mask_uri

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    message = isinstance(error, InfraiError | UsageError) and str(error)
    text = message or f"{type(error).__name__}: {error}"
    return mask_uri(" ".join("; ".join([text, *getattr(error, "__notes__", ())]).split()))
