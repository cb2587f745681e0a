"""The gateway's page: what there is, for a person on this machine to read, without a key and showing none."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from infrai_async.local._errors import RequestRefused, wrong_method
from infrai_async.local.http.host_guard import check_peer
from infrai_async.local.http.params import parse_query
from infrai_async.local.pages.markup import Html, policy_hash
from infrai_async.local.pages.queries import Overview, read
from infrai_async.local.pages.sections import about, sections
from infrai_async.local.services.base import ServiceContext

_STYLE: Final = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_SCRIPT: Final = Path(__file__).with_name("page.js").read_text(encoding="utf-8")


_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {policy_hash(_STYLE)}; script-src {policy_hash(_SCRIPT)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ICON: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%230f766e'/%3E%3Ccircle cx='8' cy='8' r='3' fill='white'/%3E%3C/svg%3E"
)


async def answer(context: ServiceContext, request: web.BaseRequest) -> web.Response:
    """Answer with the page, or say that it is still as the reader has it.

    Raises:
        RequestRefused: it is asked for from another machine, or with another method, or it is not this page.
    """
    check_peer(request.remote, request.headers.get("CDN-Loop"))
    if request.rel_url.raw_path != "/":
        raise RequestRefused(404, "NOT_FOUND", "there is no such page", hint="GET / is the gateway's page")
    if request.method not in ("GET", "HEAD"):
        raise wrong_method(request.method, ("GET", "HEAD"))
    account = parse_query(request.rel_url.raw_query_string).get("account")
    await context.count_traffic()
    overview = await context.store.run(partial(read, context=context, account=account))
    body = page(overview, context).encode()
    tag = hashlib.sha256(body).hexdigest()[:32]
    same = any(known.value == tag for known in request.if_none_match or ())
    response = web.Response(status=304, headers=_HEADERS) if same else _whole(body)
    response.etag = tag
    return response


def _whole(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/html", charset="utf-8", headers=_HEADERS)


def page(overview: Overview, context: ServiceContext) -> Html:
    """Write the whole page."""
    return Html(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Infrai local gateway</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="{_ICON}"><style>{_STYLE}</style></head><body>'
        f"<header><h1>Infrai local gateway</h1>{about(overview.account, context)}</header>"
        '<p id="silence" role="status"></p>'
        f"<main>{sections(overview, context)}</main><script>{_SCRIPT}</script></body></html>\n"
    )
