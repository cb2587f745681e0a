"""``account``: activation, the balance, and top-ups."""

from __future__ import annotations

from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._envelope import NANO, dollars
from infrai_async.local._keyring import hash_key
from infrai_async.local._refusal import invalid
from infrai_async.local._service import Call, Data, Parts, iso, new_id, serves
from infrai_async.local._state import ACCOUNTS, TOPUPS

_LEAST, _MOST = Decimal("0.01"), Decimal(1_000_000)


def open_account(connection: Connection, parts: Parts, id: str, now: str) -> Data:
    """Add an account with trial credit, unless it is there."""
    account = {"id": id, "project_id": new_id("proj"), "nano": parts.credit, "created_at": now}
    if connection.scalar(sa.select(ACCOUNTS.c.id).where(ACCOUNTS.c.id == id)) is None:
        connection.execute(ACCOUNTS.insert().values(key_hash=hash_key(parts.keyring.api_key(id)), **account))
    return account


def account_of(connection: Connection, api_key: str) -> str | None:
    """Return the account whose key this is."""
    return connection.scalar(sa.select(ACCOUNTS.c.id).where(ACCOUNTS.c.key_hash == hash_key(api_key)))


def _with_key(parts: Parts, data: Data) -> Data:
    account = data["account_id"]
    return data | {
        "primary_api_key": parts.keyring.api_key(account),
        "checkout_url": parts.checkout_url(account),
    }


@serves("account.activate", present=_with_key)
def activate(call: Call, connection: Connection) -> Data:
    account = open_account(connection, call.parts, new_id("acc"), iso(call.now))
    return {
        "account_id": account["id"],
        "project_id": account["project_id"],
        "trial_credit_usd": dollars(account["nano"]),
    }


@serves("account.balance")
def balance(call: Call, connection: Connection) -> Data:
    left = dollars(connection.execute(sa.select(ACCOUNTS.c.nano).where(ACCOUNTS.c.id == call.account)).scalar_one())
    return {"balance_usd": left, "balance": left, "currency": "USD"}


def _with_checkout(parts: Parts, data: Data) -> Data:
    url = parts.checkout_url(data["topup_id"])
    return data | {"checkout_url": url, "next_action_url": url}


@serves("account.topup", present=_with_checkout)
def top_up(call: Call, connection: Connection) -> Data:
    amount = Decimal(str(call.params["amount_usd"]))
    if not _LEAST <= amount <= _MOST or amount * NANO % 1:
        raise invalid(f"amount_usd has to be between {_LEAST} and {_MOST}", amount_usd=f"{_LEAST} to {_MOST}")
    if call.params.get("currency", "USD").upper() != "USD":
        raise invalid("the wallet holds USD only", currency="'USD'")
    id, nano = new_id("top"), int(amount * NANO)
    record = {"id": id, "nano": nano, "state": "pending", "created_at": iso(call.now)} | call.given("return_url")
    connection.execute(TOPUPS.insert().values(account_id=call.account, **record))
    money = dollars(nano)
    return {"topup_id": id, "amount_usd": money, "amount": money, "currency": "USD", "state": "pending"}
