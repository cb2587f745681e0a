"""``client.account``: the wallet and the first key (CONTRACT.md 2.5, D12, D15)."""

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
    """The account behind the key."""

    async def balance(self) -> Balance:
        """Read what is left in the wallet (``account.balance``).

        Raises:
            InfraiError: whatever the call may raise.
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
        """Begin to put money into the wallet (``account.topup``, D12): it is paid at the answer's ``checkout_url``.

        Args:
            amount_usd: how much.
            currency: of what.
            payment_method: how it will be paid.
            return_url: where the checkout page leads back to.
            idempotency_key: the same key gives the same top-up back for 24 hours; a fresh one by default.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            InfraiError: whatever else the call may raise.
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
        """Open a trial account without a key (``account.activate``, D15).

        Not every service still offers it: where it does not, sign in and set ``INFRAI_API_KEY`` instead.

        Args:
            region: where the account lives.
            device_kind: what asks, for example ``"cli"``.
            write_credentials: whether to write the key to ``~/.infrai/credentials``, readable by its owner alone; a
                file that is there is kept beside it as ``credentials.previous``.
            idempotency_key: a fresh one by default.

        Raises:
            ConfigurationError: the credentials file cannot be written; nothing was sent.
            NotFoundError: the service does not offer it.
            InfraiError: whatever else the call may raise.
        """
        arguments: dict[str, object] = {"region": region, "device_kind": device_kind}
        if write_credentials:
            prepare_credentials(credentials_file())
        try:
            activation = await self._dispatcher.call(ACCOUNT_ACTIVATE, arguments, idempotency_key)
        except APIError as error:
            if error.status in (404, 405, 410):
                error.add_note("hint: this service opens no account by itself: sign in and set INFRAI_API_KEY")
            raise
        if write_credentials:
            from anyio import to_thread  # here: the only use of it, and every client would pay for loading it

            await to_thread.run_sync(_write, credentials_file(), activation.primary_api_key)
        return activation
