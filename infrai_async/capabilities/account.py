"""Account capabilities, as the comments of the documentation's examples describe them (contract D12, D15)."""

from __future__ import annotations

from typing import Final

from infrai_async.capabilities.table import body, define
from infrai_async.models import Activation, Balance, TopupRecord

ACCOUNT_ACTIVATE: Final = define(
    "account.activate",
    "POST",
    "/activate",
    body("region", choices=("auto", "western", "china")),
    body("device_kind"),
    returns=Activation,
    public=True,
)
ACCOUNT_BALANCE: Final = define("account.balance", "GET", "/account/balance", returns=Balance)
ACCOUNT_TOPUP: Final = define(
    "account.topup",
    "POST",
    "/account/topup",
    body("amount_usd", "number", required=True, also=("amount",)),
    body("currency"),
    body("payment_method"),
    body("return_url"),
    returns=TopupRecord,
    deduplicates=True,
)
