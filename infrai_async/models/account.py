"""The account: activation, balance and top-ups."""

from __future__ import annotations

from decimal import Decimal

import attrs

from infrai_async.models.base import Model, read_from, repr_secret


@attrs.frozen(kw_only=True, weakref_slot=False)
class Activation(Model):
    """A fresh account with its first key, which the repr masks."""

    account_id: str
    project_id: str
    primary_api_key: str = attrs.field(repr=repr_secret)
    trial_credit_usd: Decimal
    checkout_url: str | None


@attrs.frozen(kw_only=True, weakref_slot=False)
class Balance(Model):
    """What is left in the wallet."""

    balance_usd: Decimal = attrs.field(metadata=read_from("balance"))
    currency: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class TopupRecord(Model):
    """A top-up to be paid at ``checkout_url``."""

    topup_id: str
    amount_usd: Decimal | None = None
    state: str | None = None
    checkout_url: str | None = attrs.field(default=None, metadata=read_from("next_action_url"))
    currency: str | None = None
