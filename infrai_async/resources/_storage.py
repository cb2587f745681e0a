"""``client.storage``: buckets and presigned URLs (contract 2.2; two generations of routes, D2)."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Literal

from infrai_async._dispatch import Resource
from infrai_async._listing.cursor import Cursor
from infrai_async.capabilities import BUCKET_CREATE, BUCKET_LIST, OBJECT_DELETE, OBJECT_PRESIGN
from infrai_async.models import Ack, Bucket, PresignedUrl


class Storage(Resource):
    """Object storage (``client.storage``)."""

    @cached_property
    def bucket(self) -> Buckets:
        """Buckets, the containers of objects."""
        return Buckets(self._dispatcher)

    @cached_property
    def object(self) -> Objects:
        """Objects, uploaded and downloaded through presigned URLs."""
        return Objects(self._dispatcher)


class Buckets(Resource):
    """Buckets (``client.storage.bucket``)."""

    async def create(
        self,
        *,
        bucket: str,
        vendor: str | None = None,
        region: str | None = None,
        acl: Literal["private", "public"] | None = None,
        idempotency_key: str | None = None,
    ) -> Bucket:
        """Create a bucket (``storage.bucket.create``, contract D20). This call is billed.

        Args:
            bucket: the bucket's name.
            vendor: the provider to use. The service chooses by default.
            region: the region to store the objects in. The service chooses by default.
            acl: who may read the objects. The service chooses by default.
            idempotency_key: the key that makes repeating this call safe: within 24 hours the same key returns the same
                response. A fresh key by default.

        Returns:
            The ``Bucket``, with its name as ``bucket``, its ``vendor``, ``region`` and ``created_at``.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            ConflictError: a bucket of this name already exists (``STORAGE_BUCKET_EXISTS``).
            InfraiError: the call failed for another reason.
        """
        arguments: dict[str, object] = {"bucket": bucket, "vendor": vendor, "region": region, "acl": acl}
        return await self._dispatcher.call(BUCKET_CREATE, arguments, idempotency_key)

    def list(self, *, max_items: int | None = None) -> Cursor[Bucket]:
        """List the account's buckets (``storage.bucket.list``). The API returns them as a single page.

        Args:
            max_items: the maximum number of items over all pages. No limit by default.

        Returns:
            A ``Cursor`` of ``Bucket`` models.

        Raises:
            InvalidArgument: ``max_items`` is not a whole number, 0 or more.
        """
        return self._dispatcher.cursor(BUCKET_LIST, {}, max_items=max_items)


class Objects(Resource):
    """Objects (``client.storage.object``)."""

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
        """Create a URL to upload or download one object without the API key (``storage.object.presign``).

        ``content_type``, ``max_bytes`` and ``response_disposition`` exist on the service's current routes only. They
        are not sent to a service that answers on the older routes (contract D2).

        Args:
            bucket: the bucket's name.
            key: the object's key. It may contain any characters, including slashes.
            method: ``"PUT"`` for an upload, ``"GET"`` for a download.
            expires_seconds: how long the URL is valid, in seconds or as a ``timedelta``. The service chooses by
                default.
            content_type: the ``Content-Type`` that an upload must have.
            max_bytes: the maximum size of an upload in bytes.
            response_disposition: the ``Content-Disposition`` header of a download.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            The ``PresignedUrl``, with its ``url``, ``method`` and ``expires_at``, and the ``headers`` to send along.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            NotFoundError: the bucket does not exist (``STORAGE_BUCKET_NOT_FOUND``).
            InfraiError: the call failed for another reason.
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

        A 404 after an earlier attempt that may have succeeded counts as success (contract D17).

        Args:
            bucket: the bucket's name.
            key: the object's key.
            idempotency_key: the key that makes repeating this call safe. A fresh key by default.

        Returns:
            An ``Ack``, truthy if the object was deleted.

        Raises:
            NotFoundError: the bucket or the object does not exist.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(OBJECT_DELETE, {"bucket": bucket, "key": key}, idempotency_key)
