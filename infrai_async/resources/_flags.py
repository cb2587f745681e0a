"""``client.flags``: definitions, evaluation and roll-outs (CONTRACT.md 2.4)."""

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
    """Feature flags."""

    async def is_enabled(
        self, key: str, *, user_id: str | None = None, context: Mapping[str, JSON] | None = None
    ) -> FlagState:
        """Ask whether a flag is on (``flags.is_enabled``, D8); the answer is truthy as the flag is.

        Args:
            key: the flag's key.
            user_id: for whom.
            context: what else rules may look at.

        Raises:
            NotFoundError: there is no such flag.
            InfraiError: whatever else the call may raise.
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
        """Evaluate a flag (``flags.get_value``, D7, D10).

        Args:
            key: the flag's key.
            user_id: for whom.
            context: what else rules may look at.
            default: what to answer when the flag cannot be evaluated: it is unknown, the service cannot be reached,
                or it fails or pushes back to the end of the call's time. Then nothing is raised, and ``reason`` is
                ``"default"``.

        Raises:
            NotFoundError: there is no such flag, and no ``default``.
            InfraiError: whatever else the call may raise.
        """
        arguments: dict[str, object] = {"key": key, "user_id": user_id, "context": context, "default": default}
        try:
            return await self._dispatcher.call(FLAG_GET_VALUE, arguments)
        except (NotFoundError, TransportError, RateLimitError, ServerError):
            if isinstance(default, Unset):
                raise
            return FlagValue(key=key, value=default, default_value=default, reason="default")

    async def get_all(self, *, user_id: str | None = None, context: Mapping[str, JSON] | None = None) -> FlagValues:
        """Evaluate every flag (``flags.get_all``, D9).

        Args:
            user_id: for whom.
            context: what else rules may look at.

        Returns:
            A mapping of flag key to value.

        Raises:
            InfraiError: whatever the call may raise.
        """
        return await self._dispatcher.call(FLAG_GET_ALL, {"user_id": user_id, "context": context})

    async def get(self, key: str) -> Flag:
        """Read a flag's definition (``flags.get``).

        Args:
            key: the flag's key.

        Raises:
            NotFoundError: there is no such flag.
            InfraiError: whatever else the call may raise.
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
        """Create or change a flag (``flags.set``, D11).

        Args:
            key: the flag's key.
            type: the type of its values.
            default_value: its value where nothing else decides; ``None`` is JSON ``null``.
            description: what it is for.
            rules: whom to serve what; the first that holds wins.
            rollout: for how many it is on.
            tags: labels.
            enabled: whether it is on at all.
            archived: whether it is put away: its default to all who ask, and no longer listed.
            version: the version that this change starts from; without it the last write wins.
            idempotency_key: a fresh one by default.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            ConflictError: the flag has moved on from ``version``.
            InfraiError: whatever else the call may raise. This write is sent again only when that is certain not to
                be done twice (D19).
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
        """Switch a flag on or off (``flags.toggle``, D5).

        Args:
            key: the flag's key.
            enabled: on or off.
            version: the version that this change starts from.
            idempotency_key: a fresh one by default.

        Raises:
            ConflictError: the flag has moved on from ``version``.
            NotFoundError: there is no such flag.
            InfraiError: whatever else the call may raise.
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
        """Roll a flag out to a share of its users (``flags.rollout``, D6).

        Args:
            key: the flag's key.
            percentage: from 0 to 100.
            salt: what the drawing depends on; keep it, and nobody who is in drops out when the share grows.
            sticky_unit: whose id is drawn.
            version: the version that this change starts from.
            variants: the arms, with their weights.
            idempotency_key: a fresh one by default.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            ConflictError: the flag has moved on from ``version``.
            NotFoundError: there is no such flag.
            InfraiError: whatever else the call may raise. This write is sent again only when that is certain not to
                be done twice (D19).
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
        """Delete a flag for good (``flags.delete``).

        Args:
            key: the flag's key.
            idempotency_key: a fresh one by default.

        Raises:
            NotFoundError: there is no such flag.
            InfraiError: whatever else the call may raise.
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
            include_archived: whether archived ones come too.
            cursor: where to resume, from ``next_cursor`` of an earlier listing.
            limit: items a page; the service's choice by default.
            max_items: items in all.
            prefetch: so many pages are fetched ahead while the one in hand is read; none by default.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        arguments: dict[str, object] = {"include_archived": include_archived, "limit": limit}
        return self._dispatcher.cursor(FLAG_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)
