"""The ``storage`` service: buckets, and presigned URLs for the transfer of objects.

Objects are kept by the gateway itself (``objects_endpoint``, ``objects.blobs``). With an S3 endpoint they are kept in
that store instead, where each bucket of the account is a separate bucket.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import conflict, invalid, not_found
from infrai_async.local.objects.blobs import mark_deleted
from infrai_async.local.objects.s3 import not_empty
from infrai_async.local.objects.sigv4 import Credentials
from infrai_async.local.objects.sigv4 import presign as presign_url
from infrai_async.local.services.base import (
    Data,
    Effect,
    ServiceCall,
    ServiceContext,
    capability,
    check_name,
    existing,
    iso,
    new_id,
)
from infrai_async.local.state.tables import BUCKETS, OBJECTS, add, document, publish

MAX_BYTES: Final = "X-Infrai-Max-Bytes"
"""The query parameter of an upload URL that limits the size of the body."""
OVERRIDES: Final = {"Content-Type": "response-content-type", "Content-Disposition": "response-content-disposition"}
"""The response headers that a download URL may override, with S3's names for the query parameters."""
_LIFETIME: Final = 900
_LONGEST: Final = 604_800
"""The longest lifetime that SigV4 allows, in seconds."""
_LONGEST_KEY: Final = 1024


def _elsewhere(context: ServiceContext) -> bool:
    return context.s3 is not None


def _stored_as(id: str, name: str) -> str:
    """Return a bucket's name in an S3 store, where the alphabet is small and all accounts share one namespace."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:28].strip("-") or "bucket"
    return f"{readable}-{id.rpartition('_')[2]}"


async def _make_there(context: ServiceContext, data: Data) -> None:
    if context.s3 is not None:
        await context.s3.make_bucket(_stored_as(data["id"], data["bucket"]))


def _forget(connection: Connection, data: Data) -> None:
    connection.execute(BUCKETS.delete().where(BUCKETS.c.id == data["id"]))


_CREATION: Final = Effect(
    perform=_make_there,
    finish=lambda connection, data: publish(connection, BUCKETS, data["id"]),
    undo=_forget,
    needed=_elsewhere,
)


def _bucket(_: ServiceContext, data: Data) -> Data:
    return {name: value for name, value in data.items() if name != "id"} | {"name": data["bucket"]}


@capability("storage.bucket.create", effect=_CREATION, present=_bucket)
def create_bucket(call: ServiceCall, connection: Connection) -> Data:
    """Create a bucket."""
    name = check_name("bucket", call.params["bucket"])
    if connection.scalar(sa.select(BUCKETS.c.id).filter_by(account_id=call.account, bucket=name)) is not None:
        raise conflict("STORAGE_BUCKET_EXISTS", f"a bucket {name!r} already exists", bucket=name)
    bucket = {
        "id": new_id("bkt"),
        "bucket": name,
        "vendor": call.params.get("vendor", "local"),
        "region": call.params.get("region", "local"),
        "acl": call.params.get("acl", "private"),
        "created_at": iso(call.now),
    }
    add(connection, BUCKETS, call.account, bucket)
    if not _elsewhere(call.context):
        publish(connection, BUCKETS, bucket["id"])
    return bucket


@capability(
    "storage.bucket.list", present=lambda context, data: {"items": [_bucket(context, item) for item in data["items"]]}
)
def list_buckets(call: ServiceCall, connection: Connection) -> Data:
    """Return all of the account's buckets."""
    query = (
        sa.select(BUCKETS)
        .where(BUCKETS.c.account_id == call.account, BUCKETS.c.seq.is_not(None))
        .order_by(BUCKETS.c.seq)
    )
    return {"items": [document(row) for row in connection.execute(query)]}


@capability("storage.bucket.get", present=_bucket)
def get_bucket(call: ServiceCall, connection: Connection) -> Data:
    """Return a bucket."""
    return _find_bucket(call, connection)


async def _remove_there(context: ServiceContext, data: Data) -> None:
    if context.s3 is not None:
        await context.s3.remove_bucket(_stored_as(data["id"], data["bucket"]), data["bucket"])


def _forgotten(connection: Connection, data: Data) -> bool:
    _forget(connection, data)
    return True


_REMOVAL: Final = Effect(
    perform=_remove_there, finish=_forgotten, undo=lambda connection, data: None, needed=_elsewhere
)


@capability("storage.bucket.delete", effect=_REMOVAL, present=lambda context, data: {"ok": True})
def delete_bucket(call: ServiceCall, connection: Connection) -> Data:
    """Delete an empty bucket."""
    bucket = _find_bucket(call, connection)
    if connection.scalar(sa.select(OBJECTS.c.key).where(OBJECTS.c.bucket_id == bucket["id"]).limit(1)) is not None:
        raise not_empty(bucket["bucket"])
    if not _elsewhere(call.context):
        _forget(connection, bucket)
    return bucket


def _find_bucket(call: ServiceCall, connection: Connection) -> Data:
    return existing(call, connection, BUCKETS, "STORAGE_BUCKET", bucket=call.params["bucket"])


def _check_key(key: str) -> str:
    if "\0" in key or len(key.encode()) > _LONGEST_KEY:
        raise invalid("key must have 1 to 1024 bytes of UTF-8 and no NUL", key="1 to 1024 bytes")
    return key


def _check_sendable(call: ServiceCall) -> str:
    """Return the key, unless clients would take it, or a part of it, out of the URL (RFC 3986, section 5.2.4)."""
    key = _check_key(call.params["key"])
    # Our own URLs have the whole key in one segment; those of an S3 store have one for each part between slashes.
    segments = key.split("/") if _elsewhere(call.context) else [key]
    if not {".", ".."}.isdisjoint(segments):
        message = "a URL of this key cannot be sent, since clients remove '.' and '..' from paths: choose another key"
        raise invalid(message, key="without '.' and '..'")
    return key


def _lifetime(call: ServiceCall) -> int:
    seconds: float = call.params.get("expires_seconds", _LIFETIME)
    if not 1 <= seconds <= _LONGEST:
        raise invalid(f"expires_seconds must be between 1 and {_LONGEST}", expires_seconds=f"1 to {_LONGEST}")
    return ceil(seconds)


def _check_header(call: ServiceCall, name: str) -> str | None:
    value = call.params.get(name)
    if value is not None and not re.fullmatch(r"[^\x00-\x1f\x7f]+", value):
        raise invalid(f"{name} must be a valid header value", **{name: "text without control characters"})
    return value


def signer(context: ServiceContext, bucket_id: str) -> Credentials:
    """Return the credentials that sign the gateway's own URLs; each bucket has its own secret."""
    return Credentials(id=bucket_id, secret=context.keyring.signing_secret(bucket_id), region="local")


def _with_url(context: ServiceContext, data: Data) -> Data:
    """Sign the URL: also anew for a replay, since it makes nothing, and an expired one helps nobody (D4)."""
    # Signatures have a resolution of one second. Rounding up gives the URL at least the requested lifetime.
    signed_at = datetime.fromtimestamp(ceil(datetime.now(UTC).timestamp()), UTC)
    here = context.address.base_url
    if context.s3 is None:
        # The key's slashes are escaped, because clients normalize ".." and "//" in anything that looks like a path.
        url = f"{here}/objects/{data['bucket_id']}/{quote(data['key'], safe='')}"
        credentials = signer(context, data["bucket_id"])
    else:
        url, credentials = (
            context.s3.url(_stored_as(data["bucket_id"], data["bucket"]), data["key"]),
            context.s3.credentials,
        )
    url = presign_url(
        credentials,
        data["method"],
        url,
        at=signed_at,
        seconds=data["seconds"],
        query=data["query"],
        headers=data["headers"],
    )
    if context.s3 is None:  # signed for the address here, which the endpoint verifies; a proxy may change the host
        url = context.base_url + url.removeprefix(here)
    expires_at = iso(signed_at + timedelta(seconds=data["seconds"]))
    return {"method": data["method"], "expires_at": expires_at, "headers": data["headers"], "url": url}


@capability("storage.object.presign", present=_with_url)
def presign(call: ServiceCall, connection: Connection) -> Data:
    """Return a signed URL for one object."""
    bucket, method, seconds = _find_bucket(call, connection), call.params.get("method", "GET"), _lifetime(call)
    query, headers = (_of_download if method == "GET" else _of_upload)(call)
    return {
        "bucket_id": bucket["id"],
        "bucket": bucket["bucket"],
        "key": _check_sendable(call),
        "method": method,
        "seconds": seconds,
        "query": query,
        "headers": headers,
    }


def _check_absent(call: ServiceCall, name: str, use: str) -> None:
    """Refuse a parameter that has no effect on this kind of URL, since the caller would rely on it."""
    if name in call.params:
        raise invalid(f"{name} is for {use} only; omit it", **{name: "absent"})


def _of_download(call: ServiceCall) -> tuple[Data, Data]:
    """Return the query parameters and headers to sign for a GET; they override headers of the response."""
    _check_absent(call, "max_bytes", "uploads")
    wanted = {
        "Content-Type": _check_header(call, "content_type"),
        "Content-Disposition": _check_header(call, "response_disposition"),
    }
    return {OVERRIDES[name]: value for name, value in wanted.items() if value is not None}, {}


def _of_upload(call: ServiceCall) -> tuple[Data, Data]:
    """Return the query parameters and headers to sign for a PUT; they restrict the body."""
    _check_absent(call, "response_disposition", "downloads")
    most, content_type = call.params.get("max_bytes"), _check_header(call, "content_type")
    if most is not None and most < 0:
        raise invalid("max_bytes must be 0 or more", max_bytes="0 or more")
    if most is not None and call.context.s3 is not None:
        raise invalid("max_bytes is not supported with an S3 store; omit it", max_bytes="absent")
    headers = {} if content_type is None else {"Content-Type": content_type}
    return {} if most is None else {MAX_BYTES: str(most)}, headers


async def _delete_there(context: ServiceContext, data: Data) -> None:
    if context.s3 is not None and not await context.s3.delete(
        _stored_as(data["bucket_id"], data["bucket"]), data["key"]
    ):
        raise not_found("STORAGE_OBJECT", data["key"])


_DELETION: Final = Effect(
    perform=_delete_there, finish=lambda connection, data: True, undo=lambda connection, data: None, needed=_elsewhere
)


@capability("storage.object.delete", effect=_DELETION, present=lambda context, data: {"ok": True})
def delete_object(call: ServiceCall, connection: Connection) -> Data:
    """Delete an object."""
    bucket, key = _find_bucket(call, connection), _check_key(call.params["key"])
    if not _elsewhere(call.context):
        _delete_here(connection, bucket["id"], key)
    return {"bucket_id": bucket["id"], "bucket": bucket["bucket"], "key": key}


def _delete_here(connection: Connection, bucket_id: str, key: str) -> None:
    this = OBJECTS.delete().where(OBJECTS.c.bucket_id == bucket_id, OBJECTS.c.key == key)
    blob = connection.scalar(this.returning(OBJECTS.c.blob))
    if blob is None:
        raise not_found("STORAGE_OBJECT", key)
    mark_deleted(connection, blob)
