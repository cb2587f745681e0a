"""Whose key a request carries."""

from __future__ import annotations

from functools import partial

from infrai_async.local._errors import RequestRefused
from infrai_async.local.services.account import account_of
from infrai_async.local.state.keyring import hash_key
from infrai_async.local.state.store import Store


class Keys:
    """Knows the account of every key.

    Args:
        store: the state that has them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str] = {}

    async def account(self, authorization: str) -> str:
        """Return the account whose key this ``Authorization`` header carries.

        Raises:
            RequestRefused: 401, none that is known.
        """
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if scheme.lower() == "bearer" and key:
            account = self._known.get(hash_key(key)) or await self._look_up(key)
            if account is not None:
                return account
        raise RequestRefused(
            401,
            "UNAUTHORIZED",
            "the API key is missing or unknown",
            hint="send Authorization: Bearer <key>; LocalGateway.api_key has one, and POST /v1/activate gives one",
            headers={"WWW-Authenticate": "Bearer"},
        )

    async def _look_up(self, key: str) -> str | None:
        """Ask the state for a key's account, and remember it: keys are never taken back."""
        account = await self._store.run(partial(account_of, key))
        if account is not None:
            self._known[hash_key(key)] = account
        return account
