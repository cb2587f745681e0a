"""Keep objects in an S3-compatible store instead of the data directory (extra ``s3``).

Presigned URLs are computed locally, as for the gateway's own objects; aiobotocore is used only for the requests that
the gateway itself makes to the store.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

from infrai_async.local._errors import RequestRefused, conflict
from infrai_async.local.objects.sigv4 import Credentials

_REGION: Final = "us-east-1"
_OURS_ALREADY: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


class S3:
    """An S3-compatible store, used with one set of credentials.

    Args:
        endpoint: the address of the store, ``http://host:port`` or ``https://...``.
        environment: the environment variables, with ``AWS_ACCESS_KEY_ID`` and the like.

    Raises:
        ValueError: if the endpoint is invalid, or the credentials or aiobotocore are missing.
    """

    def __init__(self, endpoint: str, environment: Mapping[str, str] = os.environ) -> None:
        self._endpoint = _checked(endpoint)
        self.credentials: Final = _credentials(environment)
        if importlib.util.find_spec("aiobotocore") is None:
            raise ValueError("s3_endpoint: needs aiobotocore: pip install 'infrai-async[s3]', or '.[s3]' in a checkout")
        self._client: Any = None
        self._closing = AsyncExitStack()

    async def open(self) -> None:
        """Create the client; the store need not be reachable yet."""
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        config = AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",  # other stores may not support Amazon's newer checksums
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        client = get_session().create_client(
            "s3",
            endpoint_url=self._endpoint,
            region_name=self.credentials.region,
            aws_access_key_id=self.credentials.id,
            aws_secret_access_key=self.credentials.secret,
            aws_session_token=self.credentials.token,
            config=config,
        )
        self._client = await self._closing.enter_async_context(client)

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._closing.aclose()

    def url(self, bucket: str, key: str) -> str:
        """Return the path-style URL of an object."""
        return f"{self._endpoint}/{bucket}/{quote(key, safe='/~')}"

    async def make_bucket(self, bucket: str) -> None:
        """Create a bucket, unless it already exists.

        Raises:
            RequestRefused: if the store cannot be reached or refuses the request.
        """
        region = self.credentials.region
        where = {} if region == _REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with _refusals(_OURS_ALREADY):
            await self._client.create_bucket(Bucket=bucket, **where)

    async def remove_bucket(self, bucket: str, name: str) -> None:
        """Delete a bucket, which its owner knows by ``name``, unless it is gone already.

        Raises:
            RequestRefused: 409, if it holds objects; otherwise if the store cannot be reached or refuses the request.
        """
        with _refusals(frozenset({"404", "NoSuchBucket"}), {"BucketNotEmpty": not_empty(name)}):
            await self._client.delete_bucket(Bucket=bucket)

    async def delete(self, bucket: str, key: str) -> bool:
        """Delete an object, and return whether it existed.

        Raises:
            RequestRefused: if the store cannot be reached or refuses the request.
        """
        with _refusals(frozenset({"404", "NoSuchKey", "NoSuchBucket"})):
            await self._client.head_object(Bucket=bucket, Key=key)
            await self._client.delete_object(Bucket=bucket, Key=key)
            return True
        return False


def not_empty(bucket: str) -> RequestRefused:
    """Return the error for deleting a bucket that holds objects."""
    return conflict(
        "STORAGE_BUCKET_NOT_EMPTY", f"the bucket {bucket!r} holds objects: delete them first", bucket=bucket
    )


@contextmanager
def _refusals(expected: frozenset[str], known: Mapping[str, RequestRefused] = MappingProxyType({})) -> Iterator[None]:
    """Translate the store's errors into the gateway's; errors with the expected codes are suppressed."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        if code in known:
            raise known[code] from None
        if code not in expected:
            raise RequestRefused(502, "VENDOR_ERROR", f"the S3 store refused the request ({code})") from None
    except (BotoCoreError, OSError) as error:
        message = f"the S3 store cannot be reached ({type(error).__name__})"
        raise RequestRefused(503, "VENDOR_UNAVAILABLE", message) from None


def _checked(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        if not sound or parts.port == 0:
            raise ValueError
    except ValueError:
        raise ValueError("s3_endpoint: not the address of a store: give one like http://127.0.0.1:9000") from None
    if "@" in parts.netloc:
        raise ValueError(
            "s3_endpoint: must not contain credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
        )
    return endpoint.rstrip("/")


def _credentials(environment: Mapping[str, str]) -> Credentials:
    id, secret = (environment.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if not id or not secret:
        raise ValueError(
            "s3_endpoint: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to those of the store"
        )
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or _REGION
    return Credentials(id=id, secret=secret, region=region, token=environment.get("AWS_SESSION_TOKEN") or None)
