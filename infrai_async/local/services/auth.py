"""Authenticate requests: find the account to which the API key of a request belongs."""

from __future__ import annotations

from functools import partial

from infrai_async.local._errors import RequestRefused
from infrai_async.local.services.account import account_of
from infrai_async.local.state.keyring import hash_key
from infrai_async.local.state.store import Store


class Keys:
    """Look up accounts by API key, and cache them.

    Args:
        store: the state that holds the accounts.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str] = {}

    async def account(self, authorization: str) -> str:
        """Return the account of the key in an ``Authorization`` header.

        Raises:
            RequestRefused: 401, if the header has no key or an unknown one.
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
            hint="send 'Authorization: Bearer <key>'; get a key from LocalGateway.api_key or POST /v1/activate",
            headers={"WWW-Authenticate": "Bearer"},
        )

    async def _look_up(self, key: str) -> str | None:
        """Read a key's account from the state and cache it; keys are never revoked, so the entry stays valid."""
        account = await self._store.read(partial(account_of, key))
        if account is not None:
            self._known[hash_key(key)] = account
        return account
