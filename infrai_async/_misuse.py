"""Advice for statements that fit the other client, such as ``for`` over a cursor of the asynchronous one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

_OTHERWISE: Final = "; code without an event loop can use Infrai instead"
_NO_COPY: Final = "cannot be pickled or copied, because it reads through its client: make another, in each process"
_INSTEAD: Final = "; code in an event loop can use AsyncInfrai instead"


def explain(cls: type, **advice: str) -> None:
    """Make special methods of a class raise ``TypeError`` with advice.

    They are set once the class exists, so that type checkers, linters and editors do not see them, and go on to refuse
    the statements themselves. At run time they have a price: ``isinstance(cursor, Iterable)`` is true for a cursor
    that only ``async for`` can read, and that is where such a mistake ends with the advice.

    Args:
        cls: the class, which must not have these methods.
        advice: a message for each special method, by its name.
    """
    for name, text in advice.items():
        setattr(cls, name, _refusal(cls, name, text))
    if "__len__" in advice:
        cls.__bool__ = lambda _: True  # type: ignore[attr-defined] # which would ask ``__len__``


def is_explained(source: object, name: str) -> bool:
    """Return whether a special method of an object only raises advice."""
    return hasattr(getattr(type(source), name, None), "advice")


def explain_asynchronous(cls: type, what: str, collected: str) -> None:
    """Explain that objects of a class are read by ``async for``.

    Args:
        cls: an asynchronous iterator.
        what: a name for its objects.
        collected: an expression that reads all items into a list.
    """
    use = f"use `async for`, or `{collected}`"
    explain(
        cls,
        __iter__=f"{what} is not read by `for`: {use}{_OTHERWISE}",
        __next__=f"{what} is not read by `next(...)`: use `await anext(...)`{_OTHERWISE}",
        __contains__=f"{what} cannot be searched before it is read: {use}",
        __await__=f"{what} is not awaited itself: {use}",
        __len__=f"{what} has no length before it is read: use `len({collected})`",
        __getitem__=f"{what} has no index before it is read: use `({collected})[...]`",
        __reduce__=f"{what} {_NO_COPY}",
    )


def explain_blocking(cls: type, what: str, collected: str) -> None:
    """Explain that objects of a class are read by ``for``. The arguments are those of ``explain_asynchronous``."""
    use = f"use `for`, or `{collected}`"
    explain(
        cls,
        __aiter__=f"{what} of Infrai is not read by `async for`: {use}{_INSTEAD}",
        __anext__=f"{what} of Infrai is not read by `anext(...)`: use `next(...)`{_INSTEAD}",
        __await__=f"{what} of Infrai is not awaited: {use}{_INSTEAD}",
        __len__=f"{what} has no length before it is read: use `len({collected})`",
        __getitem__=f"{what} has no index before it is read: use `{collected}[...]`",
        __reduce__=f"{what} {_NO_COPY}",
    )


def explain_async_with(cls: type, what: str) -> None:
    """Explain that objects of a class are closed by ``async with``."""
    text = f"{what} is not entered by `with`: use `async with`{_OTHERWISE}"
    explain(cls, __enter__=text, __exit__=text)


def explain_with(cls: type, what: str) -> None:
    """Explain that objects of a class are closed by ``with``."""
    text = f"{what} is not entered by `async with`: use `with`{_INSTEAD}"
    explain(cls, __aenter__=text, __aexit__=text)


def _refusal(cls: type, name: str, text: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *_: object) -> NoReturn:
        raise TypeError(text)

    refuse.__name__, refuse.__qualname__, refuse.__module__ = name, f"{cls.__qualname__}.{name}", cls.__module__
    refuse.__doc__ = f"Raise ``TypeError``: {text}."
    vars(refuse)["advice"] = text
    return refuse
