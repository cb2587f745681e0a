"""The account: activation, balance and top-ups."""

from decimal import Decimal

import attrs

from infrai_async.models.base import Model, read_from
from infrai_async.models.secrets import repr_secret


@attrs.frozen(kw_only=True, weakref_slot=False)
class Activation(Model):
    """A new trial account with its first API key, which the repr masks; ``trial_credit_usd`` is in US dollars."""

    account_id: str
    project_id: str
    primary_api_key: str = attrs.field(repr=repr_secret)
    trial_credit_usd: Decimal
    checkout_url: str | None


@attrs.frozen(kw_only=True, weakref_slot=False)
class Balance(Model):
    """Balance of the wallet; ``balance_usd`` is in US dollars."""

    balance_usd: Decimal = attrs.field(metadata=read_from("balance"))
    currency: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class TopupRecord(Model):
    """A top-up of the wallet, to be paid at ``checkout_url``; ``amount_usd`` is in US dollars."""

    topup_id: str
    amount_usd: Decimal | None = None
    state: str | None = None
    checkout_url: str | None = attrs.field(default=None, metadata=read_from("next_action_url"))
    currency: str | None = None
