"""Storage capabilities, most with the older route and that of the running service (contract D2, D20)."""

from __future__ import annotations

from typing import Final

from infrai_async.capabilities.table import Route, body, define, path
from infrai_async.models import Ack, Bucket, PresignedUrl

_ACL: Final = ("private", "public")
_VERBS: Final = ("GET", "PUT")

BUCKET_CREATE: Final = define(
    "storage.bucket.create",
    "POST",
    "/storage/buckets",
    body("bucket", required=True),
    body("vendor"),
    body("region"),
    body("acl", choices=_ACL),
    returns=Bucket,
    deduplicates=True,
    current=Route(
        "/v1/storage/bucket/create",
        (body("bucket", required=True, wire="name"), body("vendor"), body("region"), body("acl", choices=_ACL)),
    ),
)
BUCKET_LIST: Final = define(
    "storage.bucket.list",
    "GET",
    "/storage/buckets",
    returns=Bucket,
    paged=True,
    current=Route("/v1/storage/bucket/list"),
)
BUCKET_GET: Final = define("storage.bucket.get", "GET", "/storage/bucket/get/{bucket}", path("bucket"), returns=Bucket)
BUCKET_DELETE: Final = define(
    "storage.bucket.delete", "DELETE", "/storage/bucket/delete/{bucket}", path("bucket"), returns=Ack
)
OBJECT_PRESIGN: Final = define(
    "storage.object.presign",
    "POST",
    "/storage/buckets/{bucket}/objects/{key}/presign",
    path("bucket"),
    path("key"),
    body("method", choices=_VERBS, default="PUT"),
    body("expires_seconds", "number"),
    returns=PresignedUrl,
    deduplicates=True,
    expires=True,
    current=Route(
        "/v1/storage/object/presign/{bucket}/{key}",
        (
            path("bucket"),
            path("key"),
            body("method", choices=_VERBS, wire="op", lower=True, default="PUT"),
            body("expires_seconds", "number"),
            body("content_type"),
            body("max_bytes", "integer"),
            body("response_disposition"),
        ),
    ),
)
OBJECT_DELETE: Final = define(
    "storage.object.delete",
    "DELETE",
    "/storage/buckets/{bucket}/objects/{key}",
    path("bucket"),
    path("key"),
    returns=Ack,
    current=Route("/v1/storage/object/delete/{bucket}/{key}", (path("bucket"), path("key"))),
)
