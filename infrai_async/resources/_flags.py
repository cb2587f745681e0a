"""``client.flags``: definitions, evaluation and rollouts of feature flags (contract 2.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

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
from infrai_async.errors import NotFoundError, RateLimitError, ServerError, TransportError
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


class Flags(Resource):
    """Feature flags (``client.flags``)."""

    async def is_enabled(
        self, key: str, *, user_id: str | None = None, context: Mapping[str, JSON] | None = None
    ) -> FlagState:
        """Evaluate whether a flag is on (``flags.is_enabled``, contract D8).

        Args:
            key: the flag's key.
            user_id: the id of the user to evaluate the flag for.
            context: further attributes that the flag's rules can refer to.

        Returns:
            The ``FlagState``, truthy if the flag is on.

        Raises:
            NotFoundError: the flag does not exist.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(FLAG_IS_ENABLED, {"key": key, "user_id": user_id, "context": context})

    async def get_value(
        self,
        key: str,
        *,
        user_id: str | None = None,
        context: Mapping[str, JSON] | None = None,
        default: JSON | Unset = UNSET,
    ) -> FlagValue:
        """Evaluate a flag (``flags.get_value``, contract D7, D10).

        Args:
            key: the flag's key.
            user_id: the id of the user to evaluate the flag for.
            context: further attributes that the flag's rules can refer to.
            default: the value to return if the flag is unknown, or if the service cannot be reached, fails, or
                throttles the call until its time limit. Nothing is raised in these cases, and ``reason`` is
                ``"default"``.

        Returns:
            The ``FlagValue``, with the ``value``, the ``reason`` for it and the ``variant``.

        Raises:
            NotFoundError: the flag does not exist, and no ``default`` is given.
            InfraiError: the call failed for another reason.
        """
        arguments: dict[str, object] = {"key": key, "user_id": user_id, "context": context, "default": default}
        try:
            return await self._dispatcher.call(FLAG_GET_VALUE, arguments)
        except (NotFoundError, TransportError, RateLimitError, ServerError):
            if isinstance(default, Unset):
                raise
            return FlagValue(key=key, value=default, default_value=default, reason="default")

    async def get_all(self, *, user_id: str | None = None, context: Mapping[str, JSON] | None = None) -> FlagValues:
        """Evaluate all flags (``flags.get_all``, contract D9).

        Args:
            user_id: the id of the user to evaluate the flags for.
            context: further attributes that the flags' rules can refer to.

        Returns:
            The ``FlagValues``, a mapping of flag keys to values.

        Raises:
            InfraiError: the call failed.
        """
        return await self._dispatcher.call(FLAG_GET_ALL, {"user_id": user_id, "context": context})

    async def get(self, key: str) -> Flag:
        """Get the definition of a flag (``flags.get``).

        Args:
            key: the flag's key.

        Returns:
            The ``Flag``, with its ``type``, ``default_value``, ``rules``, ``rollout`` and ``version``.

        Raises:
            NotFoundError: the flag does not exist.
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
        """Create or change a flag (``flags.set``, contract D11).

        After an ambiguous failure the call is not retried, because the service does not deduplicate it (contract D19).

        Args:
            key: the flag's key.
            type: the type of the flag's values.
            default_value: the value if no rule and no rollout applies. ``None`` stands for JSON ``null``.
            description: a description of the flag.
            rules: the targeting rules. The first rule that matches decides.
            rollout: the percentage rollout.
            tags: labels of the flag.
            enabled: whether the flag is switched on.
            archived: whether the flag is archived: it then evaluates to its default value and is no longer listed.
            version: the version that the change is based on. Without it, the last write wins.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            The changed ``Flag``, with its new ``version``.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            ConflictError: ``version`` is not the flag's current version. Get the flag and repeat the change.
            InfraiError: the call failed for another reason.
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
        """Switch a flag on or off (``flags.toggle``, contract D5).

        After an ambiguous failure the call is not retried, because the service does not deduplicate it (contract D19).

        Args:
            key: the flag's key.
            enabled: whether the flag is on.
            version: the version that the change is based on.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            The changed ``Flag``, with its new ``version``.

        Raises:
            ConflictError: ``version`` is not the flag's current version. Get the flag and repeat the change.
            NotFoundError: the flag does not exist.
            InfraiError: the call failed for another reason.
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
        """Roll a flag out to a percentage of its users (``flags.rollout``, contract D6).

        After an ambiguous failure the call is not retried, because the service does not deduplicate it (contract D19).

        Args:
            key: the flag's key.
            percentage: the percentage of users, from 0 to 100.
            salt: the seed of the assignment. Keep it when you raise the percentage, so that no user drops out.
            sticky_unit: the kind of id by which users are assigned.
            version: the version that the change is based on.
            variants: the variants to serve, with their weights.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            The changed ``Flag``, with its new ``version``.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            ConflictError: ``version`` is not the flag's current version. Get the flag and repeat the change.
            NotFoundError: the flag does not exist.
            InfraiError: the call failed for another reason.
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

        A 404 after an earlier attempt that may have succeeded counts as success (contract D17).

        Args:
            key: the flag's key.
            idempotency_key: the key that makes repeating this call safe. A fresh key by default.

        Returns:
            An ``Ack``, truthy if the flag was deleted.

        Raises:
            NotFoundError: the flag does not exist.
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
            cursor: where to resume: the ``next_cursor`` of an earlier listing. The first page by default.
            limit: the maximum number of items per page. The service chooses by default.
            max_items: the maximum number of items over all pages. No limit by default.
            prefetch: the number of pages to fetch ahead of the one that is being read.

        Returns:
            A ``Cursor`` of ``Flag`` models.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
        """
        arguments: dict[str, object] = {"include_archived": include_archived, "limit": limit}
        return self._dispatcher.cursor(FLAG_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)
