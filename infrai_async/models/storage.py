"""Storage: buckets and presigned URLs."""

from collections.abc import Mapping
from datetime import datetime

import attrs

from infrai_async.models.base import Model, read_from
from infrai_async.models.secrets import repr_signed


@attrs.frozen(kw_only=True, weakref_slot=False)
class Bucket(Model):
    """An object-storage bucket."""

    bucket: str = attrs.field(metadata=read_from("name"))
    vendor: str
    region: str
    created_at: datetime
    acl: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class PresignedUrl(Model):
    """A URL that authorizes one upload (PUT) or download (GET) without the API key.

    The request must send ``headers`` unchanged.
    """

    url: str = attrs.field(repr=repr_signed)
    method: str
    expires_at: datetime
    headers: Mapping[str, str] | None = attrs.field(default=None, repr=False, hash=False)
