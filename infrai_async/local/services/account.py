"""The ``account`` service: activation, the balance, and top-ups.

Every account has exactly one pending top-up with an open amount; a 402 and an activation link to its checkout page.
Paying it creates the next one, so each ``checkout_url`` credits a wallet at most once.
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
"""The most that a wallet can hold, in nano-dollars; about a ninth of what fits into a 64-bit column."""
_OPEN: Final = 0
"""The amount recorded for a top-up whose amount is chosen at payment."""


def open_account(connection: Connection, context: ServiceContext, id: str, now: str) -> Data:
    """Create an account with trial credit and an open top-up, unless they exist."""
    account = {"id": id, "project_id": new_id("proj"), "nano": context.credit, "created_at": now}
    if connection.scalar(sa.select(ACCOUNTS.c.id).where(ACCOUNTS.c.id == id)) is None:
        connection.execute(ACCOUNTS.insert().values(key_hash=hash_key(context.keyring.api_key(id)), **account))
    if _open_top_up(connection, id) is None:
        _add_top_up(connection, id, _OPEN, now)
    return account


def account_of(api_key: str, connection: Connection) -> str | None:
    """Return the account to which an API key belongs, or None."""
    return connection.scalar(sa.select(ACCOUNTS.c.id).where(ACCOUNTS.c.key_hash == hash_key(api_key)))


def open_checkout(context: ServiceContext, account: str, connection: Connection) -> str | None:
    """Return the address of the checkout page where the payer chooses the amount."""
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
    """Create an account with trial credit."""
    account = open_account(connection, call.context, new_id("acc"), iso(call.now))
    return {
        "account_id": account["id"],
        "project_id": account["project_id"],
        "trial_credit_usd": dollars(account["nano"]),
        "topup_id": _open_top_up(connection, account["id"]),
    }


@capability("account.balance")
def balance(call: ServiceCall, connection: Connection) -> Data:
    """Return the balance of the wallet."""
    left = dollars(connection.execute(sa.select(ACCOUNTS.c.nano).where(ACCOUNTS.c.id == call.account)).scalar_one())
    return {"balance_usd": left, "balance": left, "currency": "USD"}


def _with_checkout(context: ServiceContext, data: Data) -> Data:
    url = context.checkout_url(data["topup_id"])
    return data | {"checkout_url": url, "next_action_url": url}


@capability("account.topup", present=_with_checkout)
def top_up(call: ServiceCall, connection: Connection) -> Data:
    """Create a top-up, to be paid on its checkout page."""
    nano = nano_of(str(call.params["amount_usd"]))
    if call.params.get("currency", "USD").upper() != "USD":
        raise invalid("currency must be USD, the only currency of the wallet", currency="'USD'")
    leads_to = call.given("return_url")
    if leads_to and not is_web_address(leads_to["return_url"]):
        raise invalid("return_url must be an http or https address", return_url="http(s)://...")
    id, money = _add_top_up(connection, call.account, nano, iso(call.now), **leads_to), dollars(nano)
    return {"topup_id": id, "amount_usd": money, "amount": money, "currency": "USD", "state": "pending"}


def nano_of(amount: str) -> int:
    """Parse an amount in USD and return it in nano-dollars.

    Raises:
        RequestRefused: 400, if it is not a number, is out of range or has fractions of a cent.
    """
    try:
        usd = Decimal(amount)
        if LEAST <= usd <= MOST and usd * 100 % 1 == 0:
            return int(usd * NANO)
    except ArithmeticError:
        pass
    raise invalid(f"amount_usd must be between {LEAST} and {MOST}, in whole cents", amount_usd=f"{LEAST} to {MOST}")


def is_web_address(url: str) -> bool:
    """Return whether a page may link to this URL; a ``javascript:`` URL would run as a script of that page."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and url.isprintable()


def find_top_up(id: str, connection: Connection) -> Data | None:
    """Return a top-up together with the balance of its wallet, or None if it does not exist."""
    both = sa.select(TOPUPS, ACCOUNTS.c.nano.label("balance")).join(ACCOUNTS, ACCOUNTS.c.id == TOPUPS.c.account_id)
    row = connection.execute(both.where(TOPUPS.c.id == id)).one_or_none()
    return None if row is None else dict(row._mapping)


def pay(id: str, chosen: int, now: str, connection: Connection) -> None:
    """Credit a wallet with a top-up; paying the same top-up again has no effect.

    Args:
        id: the top-up.
        chosen: the amount in nano-dollars, for a top-up whose amount is open.
        now: the current time, as the API writes it.
        connection: the transaction to work in.

    Raises:
        RequestRefused: 409, if the wallet would exceed its limit.
    """
    topup = find_top_up(id, connection)
    pending = TOPUPS.update().where(TOPUPS.c.id == id, TOPUPS.c.state == "pending")
    if topup is None or connection.execute(pending.values(state="paid", nano=topup["nano"] or chosen)).rowcount != 1:
        return
    nano, account = topup["nano"] or chosen, topup["account_id"]
    room = ACCOUNTS.update().where(ACCOUNTS.c.id == account, ACCOUNTS.c.nano <= FULL - nano)
    if connection.execute(room.values(nano=ACCOUNTS.c.nano + nano)).rowcount != 1:
        raise conflict("CONFLICT", f"the payment would exceed the limit of a local wallet, {dollars(FULL)} USD")
    if topup["nano"] == _OPEN:
        _add_top_up(connection, account, _OPEN, now)
