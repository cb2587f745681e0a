"""How far something has come: a bar, or a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from infrai_async.errors import ConfigurationError, InvalidArgument

Report: TypeAlias = Callable[[int, int | None], object]
Progress: TypeAlias = bool | Report


def check_progress(progress: Progress) -> Progress:
    """Return ``progress`` as given, before anything depends on it.

    Raises:
        InvalidArgument: neither a truth value nor a function.
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise InvalidArgument("progress must be True for a bar, or a function of (done, total)")
    return progress


@contextmanager
def reporting(progress: Progress, what: str) -> Iterator[Report]:
    """Give a function to call with how much is done, and of how much in all where that is known.

    Args:
        progress: ``True`` for a bar (tqdm's, as it suits the notebook or the terminal), or a function that is called
            with ``(done, total)``.
        what: the bar's title.

    Raises:
        ConfigurationError: ``True``, and tqdm is not installed.
        InvalidArgument: neither a truth value nor a function.
    """
    given = check_progress(progress)
    if given is False:
        yield _ignore
    elif given is True:
        yield from _bar(what)
    else:
        yield given


class ProgressReporter:
    """Reports from its first use until it is closed, or dropped; the arguments are those of ``reporting``.

    Raises:
        InvalidArgument: ``progress`` is neither a truth value nor a function.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._context = reporting(check_progress(progress), what)
        self._report: Report | None = None
        self._closed = False

    def open(self) -> None:
        """Begin; calling it again, or after the end, does nothing more.

        Raises:
            ConfigurationError: ``progress`` is ``True``, and tqdm is not installed.
        """
        if self._report is None and not self._closed:
            self._report = self._context.__enter__()

    def report(self, done: int, total: int | None) -> None:
        """Say how far it has come."""
        if self._report is not None:
            self._report(done, total)

    def close(self) -> None:
        """End; calling it again does nothing more."""
        self._closed = True
        if self._report is not None:
            self._report = None
            self._context.__exit__(None, None, None)


def _ignore(done: int, total: int | None) -> None:
    """Report to nobody."""


def _bar(what: str) -> Iterator[Report]:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ConfigurationError(
            "progress=True needs tqdm: pip install 'infrai-async[progress]', or pass a function of (done, total)"
        ) from None
    with tqdm(desc=what, unit="") as bar:

        def report(done: int, total: int | None) -> None:
            if total != bar.total and not bar.disable:
                started = bar.start_t
                bar.reset(total)  # nothing else makes the notebook's bar as wide as one with a total
                bar.start_t = started
            bar.update(done - bar.n)

        yield report
