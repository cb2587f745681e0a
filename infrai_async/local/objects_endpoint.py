"""The endpoint for presigned URLs, where clients download and upload the bytes of objects.

The signature is the only authorization; no API key is needed, and CORS lets pages of any site use a URL they were
given. Objects are served in a sandbox with an opaque origin, so an uploaded HTML page cannot act with the gateway's
origin.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import sqlalchemy as sa
from aiohttp import web
from multidict import CIMultiDict
from sqlalchemy import Connection

from infrai_async.local._errors import RequestRefused, invalid, not_found
from infrai_async.local.http.conditional import precondition, select
from infrai_async.local.http.router import decode_segment
from infrai_async.local.objects.blobs import Upload, mark_deleted
from infrai_async.local.objects.sigv4 import BadSignature, verify
from infrai_async.local.objects.streams import receive, send
from infrai_async.local.services.base import Data, ServiceContext, iso
from infrai_async.local.services.storage import MAX_BYTES, OVERRIDES, signer
from infrai_async.local.state.tables import BUCKETS, OBJECTS

_KEPT: Final = (
    "Content-Type", "Content-Disposition", "Content-Encoding", "Content-Language", "Cache-Control", "Expires"
)  # fmt: skip
"""The headers of an upload that are stored with the object and repeated in every download."""
_METADATA: Final = "x-amz-meta-"
"""How the names of headers begin that hold what the uploader says of the object; kept and repeated likewise."""
_MOST_METADATA: Final = 2048  # as in S3, so that what works here works there
_CORS: Final = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}
_HARMLESS: Final = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
_METHODS: Final = "GET, HEAD, PUT, OPTIONS"


@attrs.frozen
class _ObjectRequest:
    """The object that a presigned URL names, and the signed query parameters."""

    bucket_id: str
    key: str
    fields: Mapping[str, str]


class ObjectsEndpoint:
    """Handle requests to presigned URLs."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._keeping: set[asyncio.Task[None]] = set()

    async def drain(self) -> None:
        """Wait for the uploads that have been received completely but not yet committed."""
        if self._keeping:
            await asyncio.wait(self._keeping)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request.

        Raises:
            RequestRefused: if the signature is invalid or the request cannot be carried out.
        """
        try:
            return await self._answer(request)
        except RequestRefused as refusal:
            refusal.headers |= _CORS
            raise

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method:
            case "OPTIONS":
                return _preflight(request)
            case "GET" | "HEAD":
                return await self._get(request, self._check(request, "GET"))
            case "PUT":
                return await self._put(request, self._check(request, "PUT"))
            case _:
                allow = {"Allow": _METHODS}
                raise RequestRefused(405, "METHOD_NOT_ALLOWED", f"an object's URL allows {_METHODS}", headers=allow)

    def _check(self, request: web.BaseRequest, method: str) -> _ObjectRequest:
        """Verify the signature of a request and return the object that it names.

        The signed host is always that of the gateway on this machine, whichever of its names the URL has; which names
        are allowed has been checked before.
        """
        if "Authorization" in request.headers:
            message = "a presigned URL is an authorization of its own: send no Authorization header with it"
            raise invalid(message, Authorization="absent")
        path = decode_segment(request.rel_url.raw_path)
        bucket_id, _, key = path.removeprefix("/objects/").partition("/")
        try:
            query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="strict")
            sent = CIMultiDict(request.headers)
            sent["Host"] = urlsplit(self._context.address.base_url).netloc
            credentials = signer(self._context, bucket_id)
            verify(credentials, method, path, query, sent, now=datetime.now(UTC))
        except (BadSignature, ValueError) as error:
            message = str(error) if isinstance(error, BadSignature) else "the query cannot be parsed"
            hint = error.hint if isinstance(error, BadSignature) else None
            raise RequestRefused(403, "FORBIDDEN", message, hint=hint or "presign the object again") from None
        return _ObjectRequest(bucket_id, key, dict(query))

    # --- downloads -----------------------------------------------------------------------------------------------

    async def _get(self, request: web.BaseRequest, target: _ObjectRequest) -> web.StreamResponse:
        row, file = await self._open(target)
        try:
            return await _give(request, row, file, _overrides(target.fields))
        finally:
            await asyncio.to_thread(file.close)

    async def _open(self, target: _ObjectRequest) -> tuple[sa.Row[Any], BinaryIO]:
        """Return the row of an object and its open file, both of the same upload."""
        missing = None
        while True:
            row = await self._context.store.read(partial(_find, target))
            if row is None:
                raise not_found("STORAGE_OBJECT", target.key)
            if row.blob == missing:
                raise RequestRefused(
                    502,
                    "VENDOR_ERROR",
                    "the object's bytes are not in the data directory of this gateway",
                    hint="gateways that share an account can share objects only if started with --s3-endpoint",
                    retryable=False,
                )
            try:
                return row, await self._context.blobs.read(row.blob)
            except FileNotFoundError:
                # The object was replaced or deleted after its row was read; read the row again. If it still names the
                # same blob, the file is not late but missing.
                missing = row.blob

    # --- uploads -------------------------------------------------------------------------------------------------

    async def _put(self, request: web.BaseRequest, target: _ObjectRequest) -> web.Response:
        upload = self._context.blobs.begin()
        try:
            await receive(request, upload, int(target.fields.get(MAX_BYTES, sys.maxsize)))
            described = _described(request.headers)
        except BaseException:
            await asyncio.to_thread(upload.discard)
            raise
        keeping = asyncio.create_task(self._keep(target, upload, described, request.headers))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        # Shielded: once the commit has begun, the state may refer to the blob, and a client that disconnects must not
        # cause it to be discarded.
        await asyncio.shield(keeping)
        return web.Response(headers={"ETag": _etag(upload), **_CORS})

    async def _keep(
        self, target: _ObjectRequest, upload: Upload, described: Data, conditions: Mapping[str, str]
    ) -> None:
        try:
            await asyncio.to_thread(upload.keep)
            values = {"blob": upload.name, "size": upload.size, "etag": _etag(upload), "headers": described}
            replaced = await self._context.store.run(partial(_commit, target, values, conditions))
        except (RequestRefused, OSError):
            await asyncio.to_thread(upload.discard)
            raise
        if replaced:
            self._context.wake()


def _preflight(request: web.BaseRequest) -> web.Response:
    allowed = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Allow-Headers": "*"}
    return web.Response(status=204, headers={"Allow": _METHODS, "Access-Control-Max-Age": "3600", **allowed, **_CORS})


async def _give(
    request: web.BaseRequest, row: sa.Row[Any], file: BinaryIO, overrides: Mapping[str, str]
) -> web.StreamResponse:
    modified = datetime.fromisoformat(row.modified)
    chosen = select(request.method, request.headers, etag=row.etag, modified=modified, size=row.size)
    if chosen.status == 412:
        raise _precondition_failed(chosen.headers)
    if chosen.status == 416:
        raise RequestRefused(416, "RANGE_NOT_SATISFIABLE", f"the object has {row.size} bytes", headers=chosen.headers)
    about = CIMultiDict({**row.headers, **overrides, **chosen.headers, **_HARMLESS, **_CORS})
    if chosen.status == 304:
        kept = {name: about[name] for name in ("Cache-Control", "Expires") if name in about}
        return web.Response(status=304, headers={**chosen.headers, **kept, **_CORS})
    about.setdefault("Content-Type", "application/octet-stream")
    response = web.StreamResponse(status=chosen.status, headers=about)
    return await send(request, response, file, chosen.start, chosen.length or 0)


def _overrides(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: fields[wire] for name, wire in OVERRIDES.items() if wire in fields}


def _described(headers: Mapping[str, str]) -> Data:
    described = {name: headers[name] for name in _KEPT if name in headers}
    metadata = {name.lower(): value for name, value in headers.items() if name.lower().startswith(_METADATA)}
    try:
        size = len("".join((*metadata, *metadata.values())).encode())
        "".join(described.values()).encode()
    except UnicodeEncodeError:
        raise invalid("the headers are not valid UTF-8") from None
    if size > _MOST_METADATA:
        raise invalid(f"the metadata ({_METADATA}...) has more than {_MOST_METADATA} bytes: store it in the object")
    return described | metadata


def _etag(upload: Upload) -> str:
    return f'"{upload.md5.hexdigest()}"'


def _find(target: _ObjectRequest, connection: Connection) -> sa.Row[Any] | None:
    query = sa.select(OBJECTS).where(OBJECTS.c.bucket_id == target.bucket_id, OBJECTS.c.key == target.key)
    return connection.execute(query).one_or_none()


def _commit(target: _ObjectRequest, values: Data, conditions: Mapping[str, str], connection: Connection) -> bool:
    """Make a blob the content of the object, and return whether it replaced another blob."""
    if connection.scalar(sa.select(BUCKETS.c.id).where(BUCKETS.c.id == target.bucket_id)) is None:
        raise not_found("STORAGE_BUCKET", target.bucket_id)
    old = _find(target, connection)
    about = {} if old is None else {"etag": old.etag, "modified": datetime.fromisoformat(old.modified)}
    if precondition("PUT", conditions, **about, exists=old is not None):
        raise _precondition_failed()
    row = values | {"modified": iso(datetime.now(UTC))}
    if old is None:
        connection.execute(OBJECTS.insert().values(bucket_id=target.bucket_id, key=target.key, **row))
        return False
    connection.execute(OBJECTS.update().where(OBJECTS.c.blob == old.blob).values(row))
    mark_deleted(connection, old.blob)
    return True


def _precondition_failed(headers: Mapping[str, str] | None = None) -> RequestRefused:
    return RequestRefused(
        412, "PRECONDITION_FAILED", "the object does not meet the conditions of the request", headers=headers
    )
