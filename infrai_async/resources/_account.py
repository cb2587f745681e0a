"""``client.account``: the wallet, and activation of a trial account.

Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#25-account
"""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Literal

from infrai_async._dispatch import Resource
from infrai_async._protocol.credentials import credentials_file, prepare_credentials, reason_of
from infrai_async._protocol.credentials import write_credentials as _write
from infrai_async.capabilities import ACCOUNT_ACTIVATE, ACCOUNT_BALANCE, ACCOUNT_TOPUP
from infrai_async.errors import APIError
from infrai_async.models import Activation, Balance, TopupRecord


class Account(Resource):
    """The account that the API key belongs to."""

    async def balance(self) -> Balance:
        """Get the wallet's balance (``account.balance``).

        Returns:
            A ``Balance`` with ``balance_usd`` in US dollars and the ``currency``.

        Raises:
            InfraiError: the call failed.
        """
        return await self._dispatcher.call(ACCOUNT_BALANCE, {})

    async def topup(
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
        arguments: dict[str, object] = {
            "amount_usd": amount_usd,
            "currency": currency,
            "payment_method": payment_method,
            "return_url": return_url,
        }
        return await self._dispatcher.call(ACCOUNT_TOPUP, arguments, idempotency_key)

    async def activate(
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
        arguments: dict[str, object] = {"region": region, "device_kind": device_kind}
        if write_credentials:
            prepare_credentials(credentials_file())
        try:
            activation = await self._dispatcher.call(ACCOUNT_ACTIVATE, arguments, idempotency_key)
        except APIError as error:
            if error.status in (404, 405, 410):
                error.add_note("hint: this service does not offer activation: sign in and set INFRAI_API_KEY")
            raise
        if write_credentials:
            from anyio import to_thread  # imported here because importing anyio slows down the first client

            try:
                await to_thread.run_sync(_write, credentials_file(), activation.primary_api_key)
            except OSError as error:  # the disk has filled up since; raising would lose a key that is shown only once
                warnings.warn(
                    f"{credentials_file()} could not be written ({reason_of(error)}): store primary_api_key yourself",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return activation
