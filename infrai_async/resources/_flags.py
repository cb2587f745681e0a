"""``client.flags``: definitions, evaluation and rollouts of feature flags.

Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#24-flags
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from infrai_async._dispatch import Resource
from infrai_async._listing.cursor import Cursor
from infrai_async._protocol.request import UNSET, Unset
from infrai_async.capabilities import (
    FLAG_DELETE,
    FLAG_GET,
    FLAG_GET_ALL,
    FLAG_GET_VALUE,
    FLAG_IS_ENABLED,
    FLAG_LIST,
    FLAG_ROLLOUT,
    FLAG_SET,
    FLAG_TOGGLE,
)
from infrai_async.errors import InvalidArgument, NotFoundError, RateLimitError, ServerError, TransportError
from infrai_async.models import (
    JSON,
    Ack,
    Flag,
    FlagRule,
    FlagState,
    FlagValue,
    FlagValues,
    RolloutConfig,
    Variant,
)

_CANNOT_EVALUATE: Final = (NotFoundError, TransportError, RateLimitError, ServerError)
"""The errors in whose place a default is returned."""


class Flags(Resource):
    """Feature flags: define, evaluate and roll out."""

    async def is_enabled(
        self,
        key: str,
        *,
        user_id: str | None = None,
        context: Mapping[str, JSON] | None = None,
        default: bool | Unset = UNSET,
    ) -> FlagState:
        """Return whether a flag is on (``flags.is_enabled``, contract D8).

        Args:
            key: key of the flag.
            user_id: id of the user to evaluate for.
            context: further attributes that the flag's rules may use.
            default: what to return when the flag cannot be evaluated: it does not exist, the service cannot be
                reached, or the service still fails or throttles when the call's time or attempts run out. No error
                is raised then.

        Returns:
            A ``FlagState``, true when the flag is on.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no flag has this key, and no ``default`` was given.
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d8
        """
        if not isinstance(default, bool | Unset):
            raise InvalidArgument("default must be True or False")
        try:
            return await self._dispatcher.call(FLAG_IS_ENABLED, {"key": key, "user_id": user_id, "context": context})
        except _CANNOT_EVALUATE:
            if isinstance(default, Unset):
                raise
            return FlagState(enabled=default)

    async def get_value(
        self,
        key: str,
        *,
        user_id: str | None = None,
        context: Mapping[str, JSON] | None = None,
        default: JSON | Unset = UNSET,
    ) -> FlagValue:
        """Evaluate a flag (``flags.get_value``, contract D7 and D10).

        Args:
            key: key of the flag.
            user_id: id of the user to evaluate for.
            context: further attributes that the flag's rules may use.
            default: value to return when the flag cannot be evaluated: it does not exist, the service cannot be
                reached, or the service still fails or throttles when the call's time or attempts run out. No error
                is raised then, and ``reason`` is ``"default"``.

        Returns:
            A ``FlagValue`` with ``value``, the ``reason`` for it and, for a rollout, the ``variant``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no flag has this key, and no ``default`` was given.
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d7 ,
            https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d10
        """
        arguments: dict[str, object] = {"key": key, "user_id": user_id, "context": context, "default": default}
        try:
            return await self._dispatcher.call(FLAG_GET_VALUE, arguments)
        except _CANNOT_EVALUATE:
            if isinstance(default, Unset):
                raise
            return FlagValue(key=key, value=default, default_value=default, reason="default")

    async def get_all(self, *, user_id: str | None = None, context: Mapping[str, JSON] | None = None) -> FlagValues:
        """Evaluate all flags (``flags.get_all``, contract D9).

        Args:
            user_id: id of the user to evaluate for.
            context: further attributes that the flag's rules may use.

        Returns:
            A ``FlagValues``, a mapping of flag key to value.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d9
        """
        return await self._dispatcher.call(FLAG_GET_ALL, {"user_id": user_id, "context": context})

    async def get(self, key: str) -> Flag:
        """Get the definition of a flag (``flags.get``).

        Args:
            key: key of the flag.

        Returns:
            The ``Flag`` with its ``rules``, ``rollout`` and current ``version``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no flag has this key.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(FLAG_GET, {"key": key})

    async def set(
        self,
        key: str,
        *,
        type: Literal["bool", "string", "number", "json"] | None = None,
        default_value: JSON | Unset = UNSET,
        description: str | None = None,
        rules: Sequence[FlagRule | Mapping[str, JSON]] | None = None,
        rollout: RolloutConfig | Mapping[str, JSON] | None = None,
        tags: Mapping[str, str] | None = None,
        enabled: bool | None = None,
        archived: bool | None = None,
        version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Flag:
        """Create or update a flag (``flags.set``, contract D11).

        After an ambiguous failure it is not sent again, because that could apply the change twice (contract D19).

        Args:
            key: key of the flag.
            type: type of the flag's values.
            default_value: value when no rule and no rollout applies; ``None`` is JSON ``null``.
            description: description of the flag.
            rules: targeting rules; the first one that matches decides.
            rollout: percentage rollout for users that no rule matches.
            tags: labels of the flag.
            enabled: whether the flag is on; when off, it evaluates to ``default_value``.
            archived: whether the flag is archived: it evaluates to ``default_value`` and is no longer listed.
            version: version of the flag that this change is based on; without it the last write wins.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            The new or updated ``Flag`` with its ``version``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            ConflictError: the flag was changed since ``version``; read it again, then retry.
            InfraiError: the call failed for another reason; ``error.outcome`` is ``"maybe_applied"`` if the change
                may have been made.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d11 ,
            https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d19
        """
        arguments: dict[str, object] = {
            "key": key,
            "type": type,
            "default_value": default_value,
            "description": description,
            "rules": rules,
            "rollout": rollout,
            "tags": tags,
            "enabled": enabled,
            "archived": archived,
            "version": version,
        }
        return await self._dispatcher.call(FLAG_SET, arguments, idempotency_key)

    async def toggle(self, key: str, *, enabled: bool, version: int, idempotency_key: str | None = None) -> Flag:
        """Turn a flag on or off (``flags.toggle``).

        After an ambiguous failure it is not sent again, because that could apply the change twice (contract D19).

        Args:
            key: key of the flag.
            enabled: whether the flag is on.
            version: version of the flag that this change is based on.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            The updated ``Flag`` with its new ``version``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            ConflictError: the flag was changed since ``version``; read it again, then retry.
            NotFoundError: no flag has this key.
            InfraiError: the call failed for another reason; ``error.outcome`` is ``"maybe_applied"`` if the change
                may have been made.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d19
        """
        arguments: dict[str, object] = {"key": key, "enabled": enabled, "version": version}
        return await self._dispatcher.call(FLAG_TOGGLE, arguments, idempotency_key)

    async def rollout(
        self,
        key: str,
        *,
        percentage: float,
        salt: str,
        sticky_unit: Literal["user_id", "session_id", "device_id"],
        version: int,
        variants: Sequence[Variant | Mapping[str, JSON]] | None = None,
        idempotency_key: str | None = None,
    ) -> Flag:
        """Roll a flag out to a percentage of users (``flags.rollout``, contract D6).

        After an ambiguous failure it is not sent again, because that could apply the change twice (contract D19).

        Args:
            key: key of the flag.
            percentage: share of the users to include, 0 to 100.
            salt: string that seeds the assignment of users. With an unchanged salt, users who are included stay
                included when the percentage grows.
            sticky_unit: id by which users are assigned.
            version: version of the flag that this change is based on.
            variants: variants to choose from, with their weights.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            The updated ``Flag`` with its new ``version``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            ConflictError: the flag was changed since ``version``; read it again, then retry.
            NotFoundError: no flag has this key.
            InfraiError: the call failed for another reason; ``error.outcome`` is ``"maybe_applied"`` if the change
                may have been made.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d6 ,
            https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d19
        """
        arguments: dict[str, object] = {
            "key": key,
            "percentage": percentage,
            "salt": salt,
            "sticky_unit": sticky_unit,
            "version": version,
            "variants": variants,
        }
        return await self._dispatcher.call(FLAG_ROLLOUT, arguments, idempotency_key)

    async def delete(self, key: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a flag (``flags.delete``). This cannot be undone.

        Args:
            key: key of the flag.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the flag was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no flag has this key.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(FLAG_DELETE, {"key": key}, idempotency_key)

    def list(
        self,
        *,
        include_archived: bool | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[Flag]:
        """List flags (``flags.list``). Nothing is sent until the cursor is read.

        Args:
            include_archived: whether to include archived flags.
            cursor: position to resume from, the ``next_cursor`` of an earlier listing.
            limit: items per page; the service decides when omitted.
            max_items: maximum number of items over all pages; no limit when omitted.
            prefetch: number of pages to fetch ahead while the current page is read, 100 at most.

        Returns:
            A ``Cursor`` of ``Flag``; its pages are fetched, and their errors raised, as it is read.

        Raises:
            InvalidArgument: an argument is invalid.
        """
        arguments: dict[str, object] = {"include_archived": include_archived, "limit": limit}
        return self._dispatcher.cursor(FLAG_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)
