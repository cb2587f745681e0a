"""What a long listing has done, in a file, so that another run goes on where this one ended, however it ended.

The file is a list of JSON lines that only grows, until it is written anew without what is no longer needed: a header,
the cursor of the first page that is not done (``page``), and the ids that are done on that page and behind it
(``done``). Ids and cursors are all that stands in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from infrai_async.errors import ConfigurationError, InvalidArgument

Line: TypeAlias = dict[str, object]

_HEADER: Final[Line] = {"infrai_async": "inventory", "version": 1}
_STALE: Final = 1_000  # lines that are no longer needed, before the file is written anew


@attrs.define
class _Page:
    """A page that was begun: what is on it, where the next one is, and what is still to do."""

    ids: frozenset[str]
    following: str | None
    to_do: set[str]


class Checkpoint:
    """The file, and what it says; used from one listing, but from any thread.

    Raises:
        InvalidArgument: ``path`` is no path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(given, str) or not Path(given).name or not _can_name_a_file(given):
            raise InvalidArgument("checkpoint must be the path of a file")
        self._path = Path(given)
        self._fresh = self._path.with_name(f"{self._path.name}.new")
        self._lock = threading.Lock()
        self._cursor: str | None = None
        self._done: set[str] = set()
        self._pages: deque[_Page] = deque()
        self._page_of: dict[str, _Page] = {}
        self._lines = 0
        self._torn = False

    def open(self) -> str | None:
        """Read the file, if there is one, and return the cursor at which to go on; ``None`` is the beginning.

        Raises:
            ConfigurationError: the file is not one of ours, or cannot be read or written.
        """
        with self._lock, _as_configuration_error(self._path):
            self._cursor, self._done = _read(self._path)
            self._write_anew()
        return self._cursor

    def begin(self, ids: Iterable[str], following: str | None) -> frozenset[str]:
        """Note a page, in order: what is on it, and the cursor of the next. Return what of it is still to do."""
        with self._lock, _as_configuration_error(self._path):
            there = frozenset(ids)
            to_do = there - self._done - self._page_of.keys()  # a listing that shifts may name one twice
            page = _Page(there, following, set(to_do))
            self._pages.append(page)
            self._page_of.update(dict.fromkeys(to_do, page))
            self._move_on()
        return to_do

    def done(self, id: str) -> None:
        """Note that one is done."""
        with self._lock, _as_configuration_error(self._path):
            page = self._page_of.pop(id, None)
            if page is None:
                return
            page.to_do.discard(id)
            self._done.add(id)
            self._append({"done": id})
            self._move_on()

    def _move_on(self) -> None:
        """Leave behind the pages that are done; the last one of all keeps its place until ``remove``."""
        while self._pages and not self._pages[0].to_do and self._pages[0].following is not None:
            left = self._pages.popleft()
            self._cursor = left.following
            self._done -= left.ids
            self._append({"page": self._cursor})
        if self._lines - len(self._done) > _STALE:
            self._write_anew()

    def _append(self, line: Line) -> None:
        if self._torn:
            self._write_anew()  # with this line's news, too
            return
        self._torn = True  # a full disk takes the beginning of a line
        with self._path.open("ab") as file:  # opened each time, so that nothing is ever left open
            file.write(_encoded(line))
        self._torn = False
        self._lines += 1

    def _write_anew(self) -> None:
        """Write what is needed, and nothing else, in one step that is done or not done."""
        done: list[Line] = [{"done": id} for id in sorted(self._done)]
        lines: list[Line] = [_HEADER, {"page": self._cursor}, *done]
        self._fresh.write_bytes(b"".join(_encoded(line) for line in lines))
        os.replace(self._fresh, self._path)
        self._lines, self._torn = len(lines), False

    def remove(self) -> None:
        """Remove the file: all is done."""
        with self._lock, _as_configuration_error(self._path):
            self._path.unlink(missing_ok=True)
            self._fresh.unlink(missing_ok=True)


def _can_name_a_file(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _encoded(line: Line) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _read(path: Path) -> tuple[str | None, set[str]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, set()
    *whole, _ = content.split(b"\n")  # behind the last line break is what a killed process did not finish
    if not content:
        return None, set()
    cursor: str | None = None
    done: set[str] = set()
    try:
        lines = [json.loads(line) for line in whole]
        if not lines or lines[0] != _HEADER:
            raise ValueError("no header")
        for line in lines[1:]:
            match line:
                case {"page": str() | None as page}:
                    cursor = page
                case {"done": str() as id}:
                    done.add(id)
                case _:
                    raise ValueError("no such line")
    except ValueError:
        raise ConfigurationError(
            f"checkpoint: {path} is not a checkpoint of an inventory, and is left as it is: name another file"
        ) from None
    return cursor, done


@contextlib.contextmanager
def _as_configuration_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"checkpoint: {path} cannot be read and written: {reason}") from error
