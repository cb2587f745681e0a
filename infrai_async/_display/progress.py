"""Progress reports: by a progress bar, or by a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from infrai_async.errors import ConfigurationError, InvalidArgument

Report: TypeAlias = Callable[[int, int | None], object]
Progress: TypeAlias = bool | Report


def check_progress(progress: Progress) -> Progress:
    """Return ``progress`` after checking it.

    Raises:
        InvalidArgument: ``progress`` is neither a bool nor a function.
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise InvalidArgument("progress must be True for a bar, or a function that takes (done, total)")
    return progress


@contextmanager
def reporting(progress: Progress, what: str) -> Iterator[Report]:
    """Yield a function that reports progress when it is called with ``(done, total)``.

    Args:
        progress: ``True`` for a progress bar of tqdm, which adapts to notebook or terminal, or a function that is
            called with ``(done, total)``. ``total`` is ``None`` while it is not known.
        what: the title of the progress bar.

    Raises:
        ConfigurationError: ``progress`` is ``True``, and tqdm is not installed.
        InvalidArgument: ``progress`` is neither a bool nor a function.
    """
    checked = check_progress(progress)
    if checked is False:
        yield _ignore
    elif checked is True:
        yield from _bar(what)
    else:
        yield checked


class ProgressReporter:
    """Reports progress from ``open`` until ``close``; the arguments are those of ``reporting``.

    Raises:
        InvalidArgument: ``progress`` is neither a bool nor a function.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._context = reporting(check_progress(progress), what)
        self._report: Report | None = None
        self._closed = False

    def open(self) -> None:
        """Start to report. Opening is idempotent, and has no effect after ``close``.

        Raises:
            ConfigurationError: ``progress`` is ``True``, but tqdm is not installed.
        """
        if self._report is None and not self._closed:
            self._report = self._context.__enter__()

    def report(self, done: int, total: int | None) -> None:
        """Report that ``done`` of ``total`` is done."""
        if self._report is not None:
            self._report(done, total)

    def close(self) -> None:
        """Stop reporting. Closing is idempotent."""
        self._closed = True
        if self._report is not None:
            self._report = None
            self._context.__exit__(None, None, None)


def _ignore(done: int, total: int | None) -> None:
    """Do nothing."""


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
                bar.reset(total)  # the only way to give a notebook's bar the width of a bar with a total
                bar.start_t = started
            bar.update(done - bar.n)

        yield report
