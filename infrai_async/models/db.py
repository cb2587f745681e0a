"""Postgres: projects, branches and snapshots."""

from datetime import datetime

import attrs

from infrai_async.models.base import JSON, Model, Shown, call_footer, to_plain
from infrai_async.models.secrets import mask_uri, repr_uri


@attrs.frozen(kw_only=True, weakref_slot=False)
class Project(Model):
    """A Postgres project. Connect with ``connection_uri``; print ``masked_uri``, which hides the password."""

    id: str
    name: str
    connection_uri: str = attrs.field(repr=repr_uri)
    region: str | None = None
    created_at: datetime | None = None
    vendor: str | None = None
    plan: str | None = None
    mode: str | None = None
    postgres_version: str | None = None
    status: str | None = None

    @property
    def masked_uri(self) -> str:
        """``connection_uri`` with its password masked."""
        return mask_uri(self.connection_uri)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Branch(Model):
    """A branch of a project: a copy-on-write database of its own."""

    id: str
    branch_name: str
    project_id: str
    connection_uri: str = attrs.field(repr=repr_uri)
    from_branch: str | None = None
    created_at: datetime | None = None

    @property
    def masked_uri(self) -> str:
        """``connection_uri`` with its password masked."""
        return mask_uri(self.connection_uri)


@attrs.frozen(kw_only=True, weakref_slot=False)
class Snapshot(Model):
    """A point-in-time copy of a project."""

    id: str
    project_id: str
    created_at: datetime
    label: str | None = None


@attrs.frozen(kw_only=True, weakref_slot=False)
class ProjectInventory(Shown):
    """A project with all its branches and snapshots, as ``client.db.inventory()`` yields it."""

    project: Project
    branches: tuple[Branch, ...]
    snapshots: tuple[Snapshot, ...]

    def to_dict(self) -> dict[str, JSON]:
        """Return plain JSON types, as ``Model.to_dict`` does: connection URIs are not masked."""
        return {
            "project": self.project.to_dict(),
            "branches": to_plain(self.branches),
            "snapshots": to_plain(self.snapshots),
        }

    def _repr_html_(self) -> str:
        from infrai_async._display.html import record

        has = {"branches": len(self.branches), "snapshots": len(self.snapshots)}
        return record(self.project, footer={**has, **call_footer(self.project.metadata)})
