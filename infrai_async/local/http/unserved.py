"""The capabilities of the contract that the gateway does not serve yet (D29); the path of each follows from its id."""

from __future__ import annotations

import re
from typing import Final

_ROWS: Final = """
storage.bucket.usage GET bucket
storage.bucket.set_cors POST
storage.bucket.set_lifecycle POST bucket
storage.object.put PUT bucket key
storage.object.get GET bucket key
storage.object.head GET bucket key
storage.object.list GET bucket
storage.object.delete_batch POST bucket
storage.object.copy POST
storage.multipart.create POST bucket
storage.multipart.presign_part POST upload_id part_number
storage.multipart.complete POST upload_id
storage.multipart.abort DELETE upload_id
account.whoami GET
account.usage GET
account.usage.timeseries GET
account.keys.list GET
account.keys.create POST
account.keys.rotate POST id
account.keys.revoke DELETE id
account.keys.suspected_compromise POST id
account.budget.get GET
account.budget.set PUT
account.autorecharge.get GET
account.autorecharge.configure PUT
account.payment_method.set_default POST
account.webhooks.register POST
account.webhooks.deliveries GET id
account.webhooks.test POST id
byok.register POST
byok.list GET
byok.test POST id
byok.revoke DELETE id
"""


def _route(row: str) -> tuple[str, str, str]:
    id, method, *params = row.split()
    return id, method, "/".join(["/v1", *id.split("."), *(f"{{{param}}}" for param in params)])


ROUTES: Final = [_route(row) for row in _ROWS.split("\n") if row]
"""The id, method and path of each."""


def unserved(method: str, path: str) -> str | None:
    """Return the id of the capability that a request addresses, if it is one of these."""
    for id, own, template in ROUTES:
        if own == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return id
    return None
