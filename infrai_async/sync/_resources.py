"""The resources of the blocking client, each method declared by its asynchronous equivalent."""

from __future__ import annotations

from functools import cached_property

from infrai_async.resources import _account, _cdn, _db, _discovery, _flags, _storage
from infrai_async.sync._facade import Facade, blocking, paged
from infrai_async.sync._many import inventory


class Db(Facade[_db.Db]):
    """Managed Postgres."""

    @cached_property
    def project(self) -> Projects:
        """Projects, each a database of its own."""
        return Projects(self._async.project, self._runner)

    @cached_property
    def branch(self) -> Branches:
        """Branches: isolated copies of a project."""
        return Branches(self._async.branch, self._runner)

    @cached_property
    def snapshot(self) -> Snapshots:
        """Snapshots: point-in-time copies of a project."""
        return Snapshots(self._async.snapshot, self._runner)

    @inventory(_db.Db.inventory)
    def inventory(self) -> None: ...


class Projects(Facade[_db.Projects]):
    """``client.db.project``."""

    @blocking(_db.Projects.create)
    def create(self) -> None: ...

    @blocking(_db.Projects.get)
    def get(self) -> None: ...

    @blocking(_db.Projects.delete)
    def delete(self) -> None: ...

    @paged(_db.Projects.list)
    def list(self) -> None: ...


class Branches(Facade[_db.Branches]):
    """``client.db.branch``."""

    @blocking(_db.Branches.create)
    def create(self) -> None: ...

    @blocking(_db.Branches.get)
    def get(self) -> None: ...

    @blocking(_db.Branches.delete)
    def delete(self) -> None: ...

    @paged(_db.Branches.list)
    def list(self) -> None: ...


class Snapshots(Facade[_db.Snapshots]):
    """``client.db.snapshot``."""

    @blocking(_db.Snapshots.create)
    def create(self) -> None: ...

    @blocking(_db.Snapshots.get)
    def get(self) -> None: ...

    @blocking(_db.Snapshots.restore)
    def restore(self) -> None: ...

    @paged(_db.Snapshots.list)
    def list(self) -> None: ...


class Storage(Facade[_storage.Storage]):
    """Object storage: buckets and the objects in them."""

    @cached_property
    def bucket(self) -> Buckets:
        """Buckets, which hold objects."""
        return Buckets(self._async.bucket, self._runner)

    @cached_property
    def object(self) -> Objects:
        """Objects; their content is uploaded and downloaded through presigned URLs."""
        return Objects(self._async.object, self._runner)


class Buckets(Facade[_storage.Buckets]):
    """``client.storage.bucket``."""

    @blocking(_storage.Buckets.create)
    def create(self) -> None: ...

    @paged(_storage.Buckets.list)
    def list(self) -> None: ...


class Objects(Facade[_storage.Objects]):
    """``client.storage.object``."""

    @blocking(_storage.Objects.presign)
    def presign(self) -> None: ...

    @blocking(_storage.Objects.delete)
    def delete(self) -> None: ...


class Cdn(Facade[_cdn.Cdn]):
    """Content delivery."""

    @cached_property
    def distribution(self) -> Distributions:
        """Distributions, each an edge in front of an origin."""
        return Distributions(self._async.distribution, self._runner)

    @cached_property
    def cache(self) -> Cache:
        """The caches of the distributions."""
        return Cache(self._async.cache, self._runner)


class Distributions(Facade[_cdn.Distributions]):
    """``client.cdn.distribution``."""

    @blocking(_cdn.Distributions.create)
    def create(self) -> None: ...

    @blocking(_cdn.Distributions.get)
    def get(self) -> None: ...

    @blocking(_cdn.Distributions.update)
    def update(self) -> None: ...

    @blocking(_cdn.Distributions.delete)
    def delete(self) -> None: ...

    @paged(_cdn.Distributions.list)
    def list(self) -> None: ...


class Cache(Facade[_cdn.Cache]):
    """``client.cdn.cache``."""

    @blocking(_cdn.Cache.purge)
    def purge(self) -> None: ...

    @blocking(_cdn.Cache.stats)
    def stats(self) -> None: ...


class Flags(Facade[_flags.Flags]):
    """Feature flags: define, evaluate and roll out."""

    @blocking(_flags.Flags.is_enabled)
    def is_enabled(self) -> None: ...

    @blocking(_flags.Flags.get_value)
    def get_value(self) -> None: ...

    @blocking(_flags.Flags.get_all)
    def get_all(self) -> None: ...

    @blocking(_flags.Flags.get)
    def get(self) -> None: ...

    @blocking(_flags.Flags.set)
    def set(self) -> None: ...

    @blocking(_flags.Flags.toggle)
    def toggle(self) -> None: ...

    @blocking(_flags.Flags.rollout)
    def rollout(self) -> None: ...

    @blocking(_flags.Flags.delete)
    def delete(self) -> None: ...

    @paged(_flags.Flags.list)
    def list(self) -> None: ...


class Account(Facade[_account.Account]):
    """The account that the API key belongs to."""

    @blocking(_account.Account.balance)
    def balance(self) -> None: ...

    @blocking(_account.Account.topup)
    def topup(self) -> None: ...

    @blocking(_account.Account.activate)
    def activate(self) -> None: ...


class Discovery(Facade[_discovery.Discovery]):
    """The capabilities that the service offers. These calls need no API key."""

    @blocking(_discovery.Discovery.list)
    def list(self) -> None: ...

    @blocking(_discovery.Discovery.get)
    def get(self) -> None: ...
