"""What goes out whatever was asked: a refusal in its envelope, and the end of a connection that cannot be saved."""

from __future__ import annotations

from aiohttp import web

from infrai_async.local._errors import RequestRefused
from infrai_async.local.http.envelope import CallMetadata, failure, headers_of


def refused(refusal: RequestRefused, metadata: CallMetadata) -> web.Response:
    """Return a refusal as it is sent."""
    about = metadata.to_dict()
    return web.Response(
        status=refusal.status,
        body=failure(refusal.to_dict(), about),
        content_type="application/json",
        charset="utf-8",
        headers=headers_of(about) | refusal.headers,
    )


def abort(request: web.BaseRequest) -> None:
    """End a connection on which an answer stays incomplete, so that nobody takes it for a whole one."""
    if request.transport is not None:
        request.transport.abort()
