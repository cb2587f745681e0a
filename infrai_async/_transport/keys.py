"""The API key: where it comes from, and when it is refreshed."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from infrai_async._protocol.credentials import (
    KnownKey,
    check_api_key,
    checked_api_key,
    credentials_file,
    find_api_key,
)
from infrai_async.errors import ConfigurationError

KeySource: TypeAlias = str | Callable[[], str | Awaitable[str]] | None


class ApiKey:
    """The API key of one client, shared by all event loops.

    Attributes:
        current: the current key; ``None`` until a call needs it.
    """

    __slots__ = ("_source", "current")

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self.current: KnownKey | None = None

    @property
    def renewable(self) -> bool:
        """Whether the source may return another key when it is called again."""
        return callable(self._source)

    async def find(self, lock: asyncio.Lock, refused: KnownKey | None) -> KnownKey:
        """Return the key; get it from the source only once for all concurrent calls that need another one.

        Args:
            lock: the lock of the running event loop.
            refused: the key that the service has refused; ``None`` if the call has no key yet.

        Raises:
            ConfigurationError: there is no usable key.
        """
        # A call that waited for the lock finds the key that another call has got meanwhile. The comparison is by
        # identity, because each key from the source is a new object, even if its text is the same.
        async with lock:
            if self.current is None or self.current is refused:
                self.current = await self._load()
            return self.current

    async def _load(self) -> KnownKey:
        source = self._source
        if source is None:
            return find_api_key(os.environ, credentials_file())
        if isinstance(source, str):
            return check_api_key(source, "api_key=")
        found = await _ask(source)
        if isinstance(found, ConfigurationError):  # raised here, where no local variable holds the key
            raise found
        return found


async def _ask(source: Callable[[], str | Awaitable[str]]) -> KnownKey | ConfigurationError:
    try:
        result = source()
        return checked_api_key(await result if inspect.isawaitable(result) else result, "the api_key function")
    except ConfigurationError as error:
        return error
    except Exception as error:  # noqa: BLE001 - raised by the caller
        failed = ConfigurationError(f"the api_key function failed ({type(error).__name__})")
        failed.__cause__ = error
        return failed
