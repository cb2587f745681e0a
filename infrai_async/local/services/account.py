"""``account``: activation, the balance, and top-ups.

Every account always has one pending top-up whose amount is still open: its page is where a 402 and an activation lead.
Once it is paid there is another one, so each ``checkout_url`` credits a wallet once and never again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import conflict, invalid
from infrai_async.local.http.envelope import NANO, dollars
from infrai_async.local.services.base import Data, ServiceCall, ServiceContext, capability, iso, new_id
from infrai_async.local.state.keyring import hash_key
from infrai_async.local.state.tables import ACCOUNTS, TOPUPS

LEAST, MOST = Decimal("0.01"), Decimal(1_000_000)
FULL: Final = 1_000_000_000 * NANO
"""What a wallet holds at most; 64 bits hold nine times that."""
_OPEN: Final = 0
"""The nano-dollars of a top-up whose amount is chosen when it is paid."""


def open_account(connection: Connection, context: ServiceContext, id: str, now: str) -> Data:
    """Add an account with trial credit and an open top-up, unless they are there."""
    account = {"id": id, "project_id": new_id("proj"), "nano": context.credit, "created_at": now}
    if connection.scalar(sa.select(ACCOUNTS.c.id).where(ACCOUNTS.c.id == id)) is None:
        connection.execute(ACCOUNTS.insert().values(key_hash=hash_key(context.keyring.api_key(id)), **account))
    if _open_top_up(connection, id) is None:
        _add_top_up(connection, id, _OPEN, now)
    return account


def account_of(api_key: str, connection: Connection) -> str | None:
    """Return the account whose key this is."""
    return connection.scalar(sa.select(ACCOUNTS.c.id).where(ACCOUNTS.c.key_hash == hash_key(api_key)))


def open_checkout(context: ServiceContext, account: str, connection: Connection) -> str | None:
    """Return the address of the page on which an account pays what it likes."""
    id = _open_top_up(connection, account)
    return None if id is None else context.checkout_url(id)


def _open_top_up(connection: Connection, account: str) -> str | None:
    mine = (TOPUPS.c.account_id == account) & (TOPUPS.c.nano == _OPEN)
    return connection.scalar(sa.select(TOPUPS.c.id).where(mine))


def _add_top_up(connection: Connection, account: str, nano: int, now: str, **more: Any) -> str:
    id = new_id("top")
    values = {"id": id, "account_id": account, "nano": nano, "state": "pending", "created_at": now}
    connection.execute(TOPUPS.insert().values(values | more))
    return id


def _with_key(context: ServiceContext, data: Data) -> Data:
    checkout = context.checkout_url(data["topup_id"])
    shown = {name: value for name, value in data.items() if name != "topup_id"}
    return shown | {"primary_api_key": context.keyring.api_key(data["account_id"]), "checkout_url": checkout}


@capability("account.activate", present=_with_key)
def activate(call: ServiceCall, connection: Connection) -> Data:
    account = open_account(connection, call.context, new_id("acc"), iso(call.now))
    return {
        "account_id": account["id"],
        "project_id": account["project_id"],
        "trial_credit_usd": dollars(account["nano"]),
        "topup_id": _open_top_up(connection, account["id"]),
    }


@capability("account.balance")
def balance(call: ServiceCall, connection: Connection) -> Data:
    left = dollars(connection.execute(sa.select(ACCOUNTS.c.nano).where(ACCOUNTS.c.id == call.account)).scalar_one())
    return {"balance_usd": left, "balance": left, "currency": "USD"}


def _with_checkout(context: ServiceContext, data: Data) -> Data:
    url = context.checkout_url(data["topup_id"])
    return data | {"checkout_url": url, "next_action_url": url}


@capability("account.topup", present=_with_checkout)
def top_up(call: ServiceCall, connection: Connection) -> Data:
    nano = nano_of(str(call.params["amount_usd"]))
    if call.params.get("currency", "USD").upper() != "USD":
        raise invalid("the wallet holds USD only", currency="'USD'")
    leads_to = call.given("return_url")
    if leads_to and not is_web_address(leads_to["return_url"]):
        raise invalid("return_url has to be an http or https address", return_url="http(s)://...")
    id, money = _add_top_up(connection, call.account, nano, iso(call.now), **leads_to), dollars(nano)
    return {"topup_id": id, "amount_usd": money, "amount": money, "currency": "USD", "state": "pending"}


def nano_of(amount: str) -> int:
    """Return an amount that can be paid, in nano-dollars.

    Raises:
        RequestRefused: 400, it is none.
    """
    try:
        usd = Decimal(amount)
        if LEAST <= usd <= MOST and usd * 100 % 1 == 0:
            return int(usd * NANO)
    except ArithmeticError:
        pass
    raise invalid(f"amount_usd has to be {LEAST} to {MOST}, in whole cents", amount_usd=f"{LEAST} to {MOST}")


def is_web_address(url: str) -> bool:
    """Say whether a link may lead there: a ``javascript:`` address would run in the page that has it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and url.isprintable()


def find_top_up(id: str, connection: Connection) -> Data | None:
    """Return a top-up, with its wallet's balance, if it is there."""
    both = sa.select(TOPUPS, ACCOUNTS.c.nano.label("balance")).join(ACCOUNTS, ACCOUNTS.c.id == TOPUPS.c.account_id)
    row = connection.execute(both.where(TOPUPS.c.id == id)).one_or_none()
    return None if row is None else dict(row._mapping)


def pay(id: str, chosen: int, now: str, connection: Connection) -> None:
    """Credit a wallet with a top-up, unless that was done before.

    Args:
        id: the top-up.
        chosen: the nano-dollars to pay where the amount is open.
        now: when.
        connection: the state.

    Raises:
        RequestRefused: 409, the wallet would hold more than it can.
    """
    topup = find_top_up(id, connection)
    pending = TOPUPS.update().where(TOPUPS.c.id == id, TOPUPS.c.state == "pending")
    if topup is None or connection.execute(pending.values(state="paid", nano=topup["nano"] or chosen)).rowcount != 1:
        return
    nano, account = topup["nano"] or chosen, topup["account_id"]
    room = ACCOUNTS.update().where(ACCOUNTS.c.id == account, ACCOUNTS.c.nano <= FULL - nano)
    if connection.execute(room.values(nano=ACCOUNTS.c.nano + nano)).rowcount != 1:
        raise conflict("CONFLICT", f"a wallet of the local gateway holds {dollars(FULL)} USD at most")
    if topup["nano"] == _OPEN:
        _add_top_up(connection, account, _OPEN, now)
