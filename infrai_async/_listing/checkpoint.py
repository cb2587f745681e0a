"""The checkpoint file of an inventory, from which another run resumes after any kind of interruption.

The file consists of JSON lines: a header, the cursor of the first unfinished page (``page``), and the ids that are
done on that page and the later ones (``done``). Lines are only appended; from time to time the file is rewritten
without obsolete lines. It contains nothing but ids and cursors.
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
_STALE: Final = 1_000  # obsolete lines until the file is rewritten


@attrs.define
class _Page:
    """A page that has been started: its ids, the cursor of the next page, and the ids that are not done yet."""

    ids: frozenset[str]
    following: str | None
    to_do: set[str]


class Checkpoint:
    """A checkpoint file and its contents. It belongs to one inventory, but may be used from several threads.

    Raises:
        InvalidArgument: ``path`` cannot be the path of a file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(given, str) or not Path(given).name or not _can_name_a_file(given):
            raise InvalidArgument("checkpoint must be the path of a file")
        self._path = Path(given)
        self._fresh = self._path.with_name(f"{self._path.name}.new")
        # The loop's thread records pages while the reader's thread, with the blocking client, records finished ids.
        # Without the lock, a line could be appended to a file that is being replaced, and so be lost.
        self._lock = threading.Lock()
        self._cursor: str | None = None
        self._done: set[str] = set()
        self._pages: deque[_Page] = deque()
        self._page_of: dict[str, _Page] = {}
        self._lines = 0
        self._torn = False

    def open(self) -> str | None:
        """Read the file if it exists, and return the cursor to resume from; ``None`` for the first page.

        Raises:
            ConfigurationError: the file is not a checkpoint, or cannot be read or written.
        """
        with self._lock, _as_configuration_error(self._path):
            self._cursor, self._done = _read(self._path)
            self._rewrite()
        return self._cursor

    def begin(self, ids: Iterable[str], following: str | None) -> frozenset[str]:
        """Record the next page, with its ids and the cursor that follows; return the ids that are not done yet."""
        with self._lock, _as_configuration_error(self._path):
            on_page = frozenset(ids)
            to_do = on_page - self._done - self._page_of.keys()  # a listing that shifts may return an id twice
            page = _Page(on_page, following, set(to_do))
            self._pages.append(page)
            self._page_of.update(dict.fromkeys(to_do, page))
            self._move_on()
        return to_do

    def done(self, id: str) -> None:
        """Record that an id is done."""
        with self._lock, _as_configuration_error(self._path):
            page = self._page_of.pop(id, None)
            if page is None:
                return
            page.to_do.discard(id)
            # Recorded before the pages move on, which drops the ids of finished pages again. A process that is killed
            # between the two writes resumes at the old page and finds all of its ids done.
            self._done.add(id)
            self._append({"done": id})
            self._move_on()

    def _move_on(self) -> None:
        """Move the cursor past the pages that are done; the listing's last page stays until ``remove``."""
        while self._pages and not self._pages[0].to_do and self._pages[0].following is not None:
            finished = self._pages.popleft()
            self._cursor = finished.following
            self._done -= finished.ids
            self._append({"page": self._cursor})
        if self._lines - len(self._done) > _STALE:
            self._rewrite()

    def _append(self, line: Line) -> None:
        if self._torn:
            self._rewrite()  # includes the new line's contents
            return
        self._torn = True  # a full disk may store only the beginning of a line
        with self._path.open("ab") as file:  # opened for each line, so that no file handle is left open
            file.write(_encoded(line))
        self._torn = False
        self._lines += 1

    def _rewrite(self) -> None:
        """Replace the file, atomically, by one without obsolete lines."""
        done: list[Line] = [{"done": id} for id in sorted(self._done)]
        lines: list[Line] = [_HEADER, {"page": self._cursor}, *done]
        self._fresh.write_bytes(b"".join(_encoded(line) for line in lines))
        os.replace(self._fresh, self._path)
        self._lines, self._torn = len(lines), False

    def remove(self) -> None:
        """Remove the file, because everything is done."""
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
    *whole, _ = content.split(b"\n")  # a line without its end was not finished, because the process was killed
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
            f"checkpoint: {path} is not a checkpoint of an inventory, and is left unchanged: use another path"
        ) from None
    return cursor, done


@contextlib.contextmanager
def _as_configuration_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"checkpoint: {path} cannot be read or written: {reason}") from error
