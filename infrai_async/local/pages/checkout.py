"""The page on which a top-up is paid. Whoever has its address may press the button, and only the first time counts.

The address contains nothing but the top-up's id, which cannot be guessed. So the page needs no key and reveals none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from infrai_async.local._errors import not_found, wrong_method
from infrai_async.local.http.body import read_body
from infrai_async.local.http.host_guard import check_own_page
from infrai_async.local.http.params import parse_query
from infrai_async.local.pages.rendering import policy_hash, render, resource
from infrai_async.local.services.account import LEAST, MOST, find_top_up, is_web_address, nano_of, pay
from infrai_async.local.services.base import Data, ServiceContext, iso

_OFFERED: Final = "10.00"
"""The USD that a page with an open amount proposes, and that are paid if the form has no amount."""
_STYLE: Final = resource("checkout.css")
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        f"style-src {policy_hash(_STYLE)}"
    ),
    # Browsers take the last policy that they know. Under `no-referrer` alone they would post the form with
    # `Origin: null`, which a foreign page can send too.
    "Referrer-Policy": "no-referrer, same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Checkout:
    """Answers the requests under ``/checkout/``."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer with the page of a top-up. A POST pays it first.

        Raises:
            RequestRefused: if there is no such top-up, or if it cannot be paid like this.
        """
        if request.method not in ("GET", "HEAD", "POST"):
            raise wrong_method(request.method, ("GET", "HEAD", "POST"))
        id = request.rel_url.raw_path.removeprefix("/checkout/")
        if request.method == "POST":
            check_own_page(request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin"), request.host)
            await self._pay(id, await read_body(request))
        topup = await self._context.store.read(partial(find_top_up, id))
        if topup is None:
            raise not_found("TOPUP", id)
        return web.Response(text=page(topup), content_type="text/html", charset="utf-8", headers=_HEADERS)

    async def _pay(self, id: str, form: bytes) -> None:
        fields = parse_query(form.decode(errors="replace"))
        chosen = nano_of(fields.get("amount_usd", _OFFERED))
        await self._context.store.run(partial(pay, id, chosen, iso(datetime.now(UTC))))


def page(topup: Data) -> str:
    """Return the page of a top-up, whether it is still to be paid or paid already."""
    url = topup["return_url"]
    way_back = url if url and is_web_address(url) else None
    return render(
        "checkout.html",
        style=_STYLE,
        topup=topup,
        least=LEAST,
        most=MOST,
        offered=_OFFERED,
        way_back=way_back,
        way_back_host=way_back and urlsplit(way_back).netloc.rpartition("@")[2],
    )
