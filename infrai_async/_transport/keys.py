"""The API key: where it comes from, and when it is asked for again."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from infrai_async._protocol.config import Secret, check_api_key, credentials_file, find_api_key
from infrai_async.errors import ConfigurationError

KeySource: TypeAlias = str | Callable[[], str | Awaitable[str]] | None


class ApiKey:
    """The key of one client, which every loop that the client is used in shares.

    Attributes:
        current: the key as it was given last; ``None`` until a call has needed it.
    """

    __slots__ = ("_source", "current")

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self.current: Secret | None = None

    @property
    def renewable(self) -> bool:
        """Whether asking again may bring another key."""
        return callable(self._source)

    async def find(self, lock: asyncio.Lock, refused: Secret | None) -> Secret:
        """Return the key, asking for it once for all calls that miss it or whose key was refused.

        Args:
            lock: the one of the running loop.
            refused: what the caller has: nothing yet, or a key that the service no longer takes.

        Raises:
            ConfigurationError: there is no usable key.
        """
        async with lock:
            if self.current is None or self.current is refused:  # each answer of the source is an object of its own
                self.current = await self._ask()
            return self.current

    async def _ask(self) -> Secret:
        source = self._source
        if source is None:
            return find_api_key(os.environ, credentials_file())
        if isinstance(source, str):
            return check_api_key(source, "api_key")
        try:
            given = source()
            return check_api_key(await given if inspect.isawaitable(given) else given, "the api_key function")
        except ConfigurationError:
            raise
        except Exception as error:
            raise ConfigurationError(f"the api_key function failed ({type(error).__name__})") from error
