"""Progress of a stage on stderr: a bar on a terminal, otherwise one line at the end of the stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Final, TypeAlias

from infrai_async.cli._output import note

Advance: TypeAlias = Callable[[], object]
_WIDTH: Final = 30


def progress(title: str, total: int) -> AbstractContextManager[Advance]:
    """Show the progress of a stage of ``total`` steps; call the yielded function after each step."""
    if not sys.stderr.isatty():
        return _line(title, total)
    if find_spec("rich"):
        return _rich_bar(title, total)
    return _tqdm_bar(title, total) if find_spec("tqdm") else _plain_bar(title, total)


@contextmanager
def _line(title: str, total: int) -> Iterator[Advance]:
    begun, done = time.monotonic(), list[None]()
    try:
        yield lambda: done.append(None)
    finally:
        note(f"{title}: {len(done)} of {total} in {time.monotonic() - begun:.1f} s")


@contextmanager
def _rich_bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _tqdm_bar(title: str, total: int) -> Iterator[Advance]:
    from tqdm import tqdm

    with tqdm(total=total, desc=title, file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def _plain_bar(title: str, total: int) -> Iterator[Advance]:
    begun, done = time.monotonic(), 0

    def draw() -> None:
        full = _WIDTH * done // total
        seconds = time.monotonic() - begun
        line = f"\r{title} [{'#' * full:<{_WIDTH}}] {done}/{total} {seconds:.1f} s"
        print(line, end="", file=sys.stderr, flush=True)

    def advance() -> None:
        nonlocal done
        done += 1
        draw()

    draw()
    try:
        yield advance
    finally:
        note("")
