"""The namespaces of the blocking client. All modules but this one are written by ``python -m tools.blocking``."""

from __future__ import annotations

from infrai_async.sync._resources._account import Account as Account
from infrai_async.sync._resources._cdn import Cdn as Cdn
from infrai_async.sync._resources._db import Db as Db
from infrai_async.sync._resources._discovery import Discovery as Discovery
from infrai_async.sync._resources._flags import Flags as Flags
from infrai_async.sync._resources._storage import Storage as Storage
