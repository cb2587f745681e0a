"""``client.account``: the wallet, and activation of a trial account (contract 2.5, D12, D15)."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from infrai_async._dispatch import Resource
from infrai_async._protocol.config import credentials_file, prepare_credentials
from infrai_async._protocol.config import write_credentials as _write
from infrai_async.capabilities import ACCOUNT_ACTIVATE, ACCOUNT_BALANCE, ACCOUNT_TOPUP
from infrai_async.errors import APIError
from infrai_async.models import Activation, Balance, TopupRecord


class Account(Resource):
    """The account that the API key belongs to (``client.account``)."""

    async def balance(self) -> Balance:
        """Get the balance of the wallet (``account.balance``).

        Returns:
            The ``Balance``, with ``balance_usd`` as a ``Decimal``.

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

        The wallet is credited once the amount has been paid at the ``checkout_url`` of the result.

        Args:
            amount_usd: the amount to add, in USD.
            currency: the currency of the payment.
            payment_method: the payment method. The service offers its choices by default.
            return_url: the address that the checkout page links back to. None by default.
            idempotency_key: the key that makes repeating this call safe: within 24 hours the same key returns the same
                top-up. A fresh key by default.

        Returns:
            The ``TopupRecord``, with its ``topup_id``, ``state`` and the ``checkout_url`` to pay at.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            InfraiError: the call failed for another reason.
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
        """Open a trial account without an API key (``account.activate``, contract D15).

        The service may no longer offer this. In that case sign in and set ``INFRAI_API_KEY`` instead. After an
        ambiguous failure the call is not retried (contract D19).

        Args:
            region: the region of the account. The service chooses by default.
            device_kind: the kind of program that opens the account, for example ``"cli"``.
            write_credentials: whether to write the key to ``~/.infrai/credentials``, readable by its owner only. An
                existing file is kept as ``credentials.previous`` in the same directory.
            idempotency_key: the idempotency key to send. A fresh key by default.

        Returns:
            The ``Activation``, with the ``account_id``, the ``primary_api_key`` and the ``trial_credit_usd``.

        Raises:
            ConfigurationError: the credentials file cannot be written. Nothing was sent.
            NotFoundError: the service no longer offers activation.
            InfraiError: the call failed for another reason.
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
            from anyio import to_thread  # imported here because no other call of the client needs it

            await to_thread.run_sync(_write, credentials_file(), activation.primary_api_key)
        return activation
