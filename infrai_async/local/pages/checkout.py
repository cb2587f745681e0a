"""The page on which a top-up is paid: whoever has its address may press the button, and it counts once.

The address holds nothing but the top-up's id, which cannot be guessed, so the page needs no key and gives none away.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from html import escape
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from infrai_async.local._errors import RequestRefused, not_found, wrong_method
from infrai_async.local.http.envelope import NANO
from infrai_async.local.http.params import parse_query
from infrai_async.local.pages.markup import policy_hash
from infrai_async.local.services.account import LEAST, MOST, find_top_up, is_web_address, nano_of, pay
from infrai_async.local.services.base import Data, ServiceContext, iso

_OFFERED: Final = "10.00"
"""The USD that a page with an open amount proposes, and takes when it is told none."""
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #f4f5f7; margin: 0 }
main { max-width: 24rem; margin: 12vh auto; padding: 2rem; background: #fff; border-radius: 12px;
       box-shadow: 0 1px 4px #0003 }
h1 { font-size: 1.4rem; margin: 0 0 1rem }
input, button { font: inherit; padding: .6rem .8rem; border-radius: 8px; border: 1px solid #8a929c }
input { width: 8rem }
button { display: block; width: 100%; margin-top: 1rem; border: 0; background: #0b57d0; color: #fff; cursor: pointer }
small { color: #59616b }
"""
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - Infrai on this machine</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>The wallet holds <strong id="balance">{balance} USD</strong>.</p>
{rest}
<p><small>This is the local gateway: no real money is moved.</small></p>
</main>
</body>
</html>
"""
_AMOUNT: Final = (
    f'<label>Amount in USD <input id="amount" name="amount_usd" type="number" required'
    f' min="{LEAST}" max="{MOST}" step="0.01" value="{_OFFERED}"></label>\n'
)
_FORM: Final = '<form method="post">\n{amount}<button id="pay">{action}</button>\n</form>'
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        f"style-src {policy_hash(_STYLE)}"
    ),
    # Browsers take the last one they know. Under `no-referrer` itself they would post the form with `Origin: null`, as
    # a foreign page can too.
    "Referrer-Policy": "no-referrer, same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Checkout:
    """The door ``checkout``."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Show a top-up; a POST pays it first."""
        if request.method not in ("GET", "HEAD", "POST"):
            raise wrong_method(request.method, ("GET", "HEAD", "POST"))
        id = request.rel_url.raw_path.removeprefix("/checkout/")
        if request.method == "POST":
            check_own_page(request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin"), request.host)
            await self._pay(id, await request.read())
        topup = await self._context.store.run(partial(find_top_up, id))
        if topup is None:
            raise not_found("TOPUP", id)
        return web.Response(text=page(topup), content_type="text/html", charset="utf-8", headers=_HEADERS)

    async def _pay(self, id: str, form: bytes) -> None:
        fields = parse_query(form.decode(errors="replace"))
        chosen = nano_of(fields.get("amount_usd", _OFFERED))
        await self._context.store.run(partial(pay, id, chosen, iso(datetime.now(UTC))))


def check_own_page(site: str | None, origin: str | None, host: str) -> None:
    """See to it that a form was sent by this page, or by no browser at all.

    Args:
        site: the header ``Sec-Fetch-Site``.
        origin: the header ``Origin``.
        host: the host that is asked, with its port.

    Raises:
        RequestRefused: 403, another site's page sent it.
    """
    ours = (None, f"http://{host}".lower(), f"https://{host}".lower())
    if (origin and origin.lower()) not in ours or site not in (None, "same-origin", "none"):
        raise RequestRefused(
            403, "FORBIDDEN", "only the checkout page itself may pay", hint="open it, and press its button"
        )


def page(topup: Data) -> str:
    """Return the page of a top-up: to be paid, or paid."""
    amount = f" {_money(topup['nano'])} USD" if topup["nano"] else ""
    if topup["state"] == "pending":
        title, rest = f"Top up{amount}", _FORM.format(amount="" if amount else _AMOUNT, action=f"Pay{amount}")
    else:
        title, rest = f"Paid:{amount}", _way_back(topup["return_url"])
    return _PAGE.format(title=title, style=_STYLE, balance=_money(topup["balance"]), rest=rest)


def _way_back(url: str | None) -> str:
    if url is None or not is_web_address(url):
        return ""
    name = escape(urlsplit(url).netloc.rpartition("@")[2])
    return f'<p><a id="return" rel="noreferrer" href="{escape(url)}">Back to {name}</a></p>'


def _money(nano: int) -> str:
    """Write money exactly, with two decimals at least."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{f'{rest:09}'.rstrip('0'):0<2}"
