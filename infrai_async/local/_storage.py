"""``storage``: buckets, and where their objects' bytes will go."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from urllib.parse import quote, urlencode

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._refusal import conflict, invalid, not_found
from infrai_async.local._service import Call, Data, Parts, check_name, existing, iso, new_id, serves
from infrai_async.local._state import BUCKETS, add, arrive, document, find

_LIFETIME: Final = 900
_LONGEST: Final = 604_800
"""What SigV4 allows, in seconds."""
_LONGEST_KEY: Final = 1024


def _bucket(_: Parts, data: Data) -> Data:
    return {name: value for name, value in data.items() if name != "id"} | {"name": data["bucket"]}


@serves("storage.bucket.create", present=_bucket)
def create_bucket(call: Call, connection: Connection) -> Data:
    name = check_name("bucket", call.params["bucket"])
    if find(connection, BUCKETS, call.account, bucket=name) is not None:
        raise conflict("STORAGE_BUCKET_EXISTS", f"there is a bucket {name!r} already", bucket=name)
    bucket = {
        "id": new_id("bkt"),
        "bucket": name,
        "vendor": call.params.get("vendor", "local"),
        "region": call.params.get("region", "local"),
        "acl": call.params.get("acl", "private"),
        "created_at": iso(call.now),
    }
    add(connection, BUCKETS, call.account, bucket)
    arrive(connection, BUCKETS, bucket["id"])
    return bucket


@serves("storage.bucket.list", present=lambda parts, data: {"items": [_bucket(parts, item) for item in data["items"]]})
def list_buckets(call: Call, connection: Connection) -> Data:
    query = sa.select(BUCKETS).where(BUCKETS.c.account_id == call.account).order_by(BUCKETS.c.seq)
    return {"items": [document(row) for row in connection.execute(query)]}


def _find_bucket(call: Call, connection: Connection) -> Data:
    return existing(call, connection, BUCKETS, "STORAGE_BUCKET", bucket=call.params["bucket"])


def _check_key(key: str) -> str:
    if "\0" in key or len(key.encode()) > _LONGEST_KEY:
        raise invalid("an object's key has 1 to 1024 bytes of UTF-8, none of them NUL", key="1 to 1024 bytes")
    return key


def _lifetime(call: Call) -> timedelta:
    seconds = call.params.get("expires_seconds", _LIFETIME)
    if not 1 <= seconds <= _LONGEST:
        raise invalid(f"expires_seconds has to be between 1 and {_LONGEST}", expires_seconds=f"1 to {_LONGEST}")
    return timedelta(seconds=seconds)


def _with_url(parts: Parts, data: Data) -> Data:
    address = f"{parts.base_url}/objects/{data['bucket_id']}/{quote(data['key'], safe='')}"
    query = urlencode({"method": data["method"], "expires_at": data["expires_at"]})
    headers = {} if data["content_type"] is None else {"Content-Type": data["content_type"]}
    return {
        "url": f"{address}?{query}",
        "method": data["method"],
        "expires_at": data["expires_at"],
        "headers": headers,
    }


@serves("storage.object.presign", present=_with_url)
def presign(call: Call, connection: Connection) -> Data:
    return {
        "bucket_id": _find_bucket(call, connection)["id"],
        "key": _check_key(call.params["key"]),
        "method": call.params.get("method", "GET"),
        "expires_at": iso(call.now + _lifetime(call)),
        "content_type": call.params.get("content_type"),
    }


@serves("storage.object.delete")
def delete_object(call: Call, connection: Connection) -> Data:
    _find_bucket(call, connection)
    raise not_found("STORAGE_OBJECT", _check_key(call.params["key"]))  # none can have been put yet
