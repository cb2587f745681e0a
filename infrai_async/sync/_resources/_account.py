"""``client.account`` of the blocking client.

Written by ``python -m tools.blocking`` from ``infrai_async/resources/_account.py``: change that instead.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Literal

from infrai_async.models import Activation, Balance, TopupRecord
from infrai_async.resources import _account
from infrai_async.sync._facade import Facade


class Account(Facade[_account.Account]):
    """The account that the API key belongs to."""

    def balance(self) -> Balance:
        """Get the wallet's balance (``account.balance``).

        Returns:
            A ``Balance`` with ``balance_usd`` in US dollars and the ``currency``.

        Raises:
            InfraiError: the call failed.
        """
        __tracebackhide__ = True
        return self._runner.run(self._async.balance)

    def topup(
        self,
        *,
        amount_usd: Decimal | float,
        currency: str = "USD",
        payment_method: str | None = None,
        return_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> TopupRecord:
        """Start a top-up of the wallet (``account.topup``, contract D12).

        The wallet is credited once the payment is made on the page at the result's ``checkout_url``.

        Args:
            amount_usd: amount in US dollars.
            currency: currency code sent with the amount.
            payment_method: payment method to use; the service decides when omitted.
            return_url: URL that the checkout page links back to.
            idempotency_key: a repeated call with the same key returns the same top-up for 24 hours; generated when
                omitted.

        Returns:
            A ``TopupRecord`` with ``topup_id``, ``state`` and the ``checkout_url`` at which to pay.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d12
        """
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.topup,
                amount_usd=amount_usd,
                currency=currency,
                payment_method=payment_method,
                return_url=return_url,
                idempotency_key=idempotency_key,
            )
        )

    def activate(
        self,
        *,
        region: Literal["auto", "western", "china"] | None = None,
        device_kind: str | None = None,
        write_credentials: bool = True,
        idempotency_key: str | None = None,
    ) -> Activation:
        """Open a trial account; this call needs no API key (``account.activate``, contract D15).

        Not every service offers activation. Where it is missing, sign in and set ``INFRAI_API_KEY`` instead.

        Args:
            region: region of the account; the service decides when omitted.
            device_kind: kind of client that activates, for example ``"cli"``.
            write_credentials: whether to write the key to ``~/.infrai/credentials``, readable by its owner only. An
                existing file is kept as ``credentials.previous``. If writing fails after the account was opened, a
                ``RuntimeWarning`` says so, because the key is shown only once.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Activation`` with ``account_id``, ``project_id``, the ``primary_api_key`` (masked in its repr) and
            ``trial_credit_usd`` in US dollars.

        Raises:
            ConfigurationError: the credentials file cannot be written; nothing was sent.
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the service does not offer activation.
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d15
        """
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.activate,
                region=region,
                device_kind=device_kind,
                write_credentials=write_credentials,
                idempotency_key=idempotency_key,
            )
        )
