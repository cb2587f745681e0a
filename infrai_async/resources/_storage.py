"""``client.storage``: buckets and presigned URLs (CONTRACT.md 2.2; two generations of routes, D2)."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Literal

from infrai_async._dispatch import Resource
from infrai_async._listing.cursor import Cursor
from infrai_async.capabilities import BUCKET_CREATE, BUCKET_LIST, OBJECT_DELETE, OBJECT_PRESIGN
from infrai_async.models import Ack, Bucket, PresignedUrl


class Storage(Resource):
    """Object storage."""

    @cached_property
    def bucket(self) -> Buckets:
        """Buckets."""
        return Buckets(self._dispatcher)

    @cached_property
    def object(self) -> Objects:
        """Objects, whose bytes travel over presigned URLs."""
        return Objects(self._dispatcher)


class Buckets(Resource):
    """``client.storage.bucket``."""

    async def create(
        self,
        *,
        bucket: str,
        vendor: str | None = None,
        region: str | None = None,
        acl: Literal["private", "public"] | None = None,
        idempotency_key: str | None = None,
    ) -> Bucket:
        """Create a bucket (``storage.bucket.create``, D20). It is billed.

        Args:
            bucket: its name.
            vendor: pin one provider instead of automatic routing.
            region: where to keep it.
            acl: who may read it.
            idempotency_key: the same key gives the same answer for 24 hours; a fresh one by default.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            ConflictError: there is a bucket of that name (``STORAGE_BUCKET_EXISTS``).
            InfraiError: whatever else the call may raise.
        """
        arguments: dict[str, object] = {"bucket": bucket, "vendor": vendor, "region": region, "acl": acl}
        return await self._dispatcher.call(BUCKET_CREATE, arguments, idempotency_key)

    def list(self, *, max_items: int | None = None) -> Cursor[Bucket]:
        """List the account's buckets (``storage.bucket.list``); the API gives them as one page.

        Args:
            max_items: items in all.

        Raises:
            InvalidArgument: ``max_items`` is negative or no whole number.
        """
        return self._dispatcher.cursor(BUCKET_LIST, {}, max_items=max_items)


class Objects(Resource):
    """``client.storage.object``."""

    async def presign(
        self,
        bucket: str,
        key: str,
        *,
        method: Literal["GET", "PUT"] = "PUT",
        expires_seconds: float | timedelta | None = None,
        content_type: str | None = None,
        max_bytes: int | None = None,
        response_disposition: str | None = None,
        idempotency_key: str | None = None,
    ) -> PresignedUrl:
        """Get a URL that takes or gives one object's bytes without the API key (``storage.object.presign``).

        ``content_type``, ``max_bytes`` and ``response_disposition`` belong to the running service's routes; where a
        service still answers those of the older documentation, it does not know them and they are not sent (D2).

        Args:
            bucket: the bucket's name.
            key: the object's key; any text, slashes included.
            method: what the URL is for.
            expires_seconds: how long it works, in seconds or as a ``timedelta``; the service's choice by default.
            content_type: the type that an upload must have.
            max_bytes: the largest upload that the URL takes.
            response_disposition: the ``Content-Disposition`` that a download answers with.
            idempotency_key: a fresh one by default.

        Returns:
            The URL with its method, its expiry and the headers that must go along.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            NotFoundError: there is no such bucket (``STORAGE_BUCKET_NOT_FOUND``).
            InfraiError: whatever else the call may raise.
        """
        arguments: dict[str, object] = {
            "bucket": bucket,
            "key": key,
            "method": method,
            "expires_seconds": expires_seconds,
            "content_type": content_type,
            "max_bytes": max_bytes,
            "response_disposition": response_disposition,
        }
        return await self._dispatcher.call(OBJECT_PRESIGN, arguments, idempotency_key)

    async def delete(self, bucket: str, key: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete an object (``storage.object.delete``).

        Args:
            bucket: the bucket's name.
            key: the object's key.
            idempotency_key: a fresh one by default.

        Raises:
            NotFoundError: there is no such bucket or object.
            InfraiError: whatever else the call may raise.
        """
        return await self._dispatcher.call(OBJECT_DELETE, {"bucket": bucket, "key": key}, idempotency_key)
