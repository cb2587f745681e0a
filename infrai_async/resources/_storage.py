"""``client.storage``: buckets and presigned URLs (contract D2: the routes exist in two generations).

Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#22-storage ,
    https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d2
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Literal

from infrai_async._dispatch import Resource
from infrai_async._listing.cursor import Cursor
from infrai_async.capabilities import (
    BUCKET_CREATE,
    BUCKET_DELETE,
    BUCKET_GET,
    BUCKET_LIST,
    OBJECT_DELETE,
    OBJECT_PRESIGN,
)
from infrai_async.errors import ConflictError
from infrai_async.models import Ack, Bucket, PresignedUrl


class Storage(Resource):
    """Object storage: buckets and the objects in them."""

    @cached_property
    def bucket(self) -> Buckets:
        """Buckets, which hold objects."""
        return Buckets(self._dispatcher)

    @cached_property
    def object(self) -> Objects:
        """Objects; their content is uploaded and downloaded through presigned URLs."""
        return Objects(self._dispatcher)

    async def ensure_bucket(
        self,
        bucket: str,
        *,
        vendor: str | None = None,
        region: str | None = None,
        acl: Literal["private", "public"] | None = None,
    ) -> Bucket:
        """Return a bucket, creating it if there is none (``storage.bucket.create`` and ``storage.bucket.get``).

        Args:
            bucket: name of the bucket.
            vendor: provider to use; any when omitted.
            region: region of the bucket; any when omitted.
            acl: who may read the objects; anything when omitted.

        Returns:
            The ``Bucket``, which is as was asked.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            ConflictError: the bucket exists and differs from what was asked; the message says how.
            InfraiError: a call failed for another reason.
        """
        try:
            return await self.bucket.create(bucket=bucket, vendor=vendor, region=region, acl=acl)
        except ConflictError as error:
            if error.code != "STORAGE_BUCKET_EXISTS":
                raise
            exists = error
        found = await self.bucket.get(bucket)
        asked = {"vendor": vendor, "region": region, "acl": acl}
        differing = [
            f"{name} is {getattr(found, name)!r}, not {value!r}"
            for name, value in asked.items()
            if value is not None and getattr(found, name) != value
        ]
        if not differing:
            return found
        exists.message = f"the bucket exists, but {' and '.join(differing)}"
        exists.args = (exists.message,)
        raise exists


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
        """Create a bucket (``storage.bucket.create``, contract D20). This call is billed.

        Args:
            bucket: name of the bucket.
            vendor: provider to use; the service chooses when omitted.
            region: region of the bucket.
            acl: who may read the objects.
            idempotency_key: a repeated call with the same key returns the same bucket for 24 hours; generated when
                omitted.

        Returns:
            The new ``Bucket`` with its name, ``vendor`` and ``region``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            ConflictError: a bucket with this name exists already (``STORAGE_BUCKET_EXISTS``).
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d20
        """
        arguments: dict[str, object] = {"bucket": bucket, "vendor": vendor, "region": region, "acl": acl}
        return await self._dispatcher.call(BUCKET_CREATE, arguments, idempotency_key)

    async def get(self, bucket: str) -> Bucket:
        """Get a bucket (``storage.bucket.get``).

        Args:
            bucket: name of the bucket.

        Returns:
            The ``Bucket``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the bucket does not exist (``STORAGE_BUCKET_NOT_FOUND``).
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(BUCKET_GET, {"bucket": bucket})

    async def delete(self, bucket: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete an empty bucket (``storage.bucket.delete``). This cannot be undone.

        Args:
            bucket: name of the bucket.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the bucket was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the bucket does not exist (``STORAGE_BUCKET_NOT_FOUND``).
            ConflictError: the bucket holds objects.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(BUCKET_DELETE, {"bucket": bucket}, idempotency_key)

    def list(self, *, max_items: int | None = None) -> Cursor[Bucket]:
        """List the account's buckets (``storage.bucket.list``). Nothing is sent until the cursor is read.

        The service returns all buckets as a single page.

        Args:
            max_items: maximum number of items; no limit when omitted.

        Returns:
            A ``Cursor`` of ``Bucket``; its page is fetched, and its errors raised, as it is read.

        Raises:
            InvalidArgument: ``max_items`` is not an integer, or is negative.
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
        """Create a URL that uploads or downloads one object without the API key (``storage.object.presign``).

        The running service's route alone carries ``content_type``, ``max_bytes`` and ``response_disposition``. A call
        with one of them takes that route; if the service does not have it, the call fails (contract D2).

        Args:
            bucket: name of the bucket.
            key: key of the object; any text, slashes included.
            method: ``"PUT"`` to upload, ``"GET"`` to download.
            expires_seconds: lifetime of the URL in seconds, or as a ``timedelta``; the service decides when omitted.
            content_type: content type that an upload must have.
            max_bytes: maximum size of an upload in bytes.
            response_disposition: ``Content-Disposition`` header of a download.
            idempotency_key: a repeated call with the same key is not charged again for 24 hours; generated when
                omitted.

        Returns:
            A ``PresignedUrl`` with ``url``, ``method``, ``expires_at`` and the ``headers`` that the request must send.

        Raises:
            InvalidArgument: an argument is invalid and nothing was sent, or the service does not have the route that
                carries it (``outcome`` and ``attempts`` tell them apart).
            NotFoundError: the bucket does not exist (``STORAGE_BUCKET_NOT_FOUND``).
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d2
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
        """Delete an object (``storage.object.delete``). This cannot be undone.

        Args:
            bucket: name of the bucket.
            key: key of the object.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the object was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the bucket or the object does not exist.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(OBJECT_DELETE, {"bucket": bucket, "key": key}, idempotency_key)
