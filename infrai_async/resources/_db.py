"""``client.db``: Postgres projects, branches and snapshots (CONTRACT.md 2.1)."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from infrai_async._core import Resource
from infrai_async._cursor import Cursor
from infrai_async.capabilities import (
    BRANCH_CREATE,
    BRANCH_DELETE,
    BRANCH_GET,
    BRANCH_LIST,
    PROJECT_CREATE,
    PROJECT_DELETE,
    PROJECT_GET,
    PROJECT_LIST,
    SNAPSHOT_CREATE,
    SNAPSHOT_GET,
    SNAPSHOT_LIST,
    SNAPSHOT_RESTORE,
)
from infrai_async.models import Ack, Branch, Project, Snapshot


class Db(Resource):
    """Managed Postgres."""

    @cached_property
    def project(self) -> Projects:
        """Projects: a database each."""
        return Projects(self._core)

    @cached_property
    def branch(self) -> Branches:
        """Branches: copies of a project to try things in."""
        return Branches(self._core)

    @cached_property
    def snapshot(self) -> Snapshots:
        """Snapshots: a project frozen at one moment."""
        return Snapshots(self._core)


class Projects(Resource):
    """``client.db.project``."""

    async def create(
        self,
        *,
        name: str,
        vendor: str | None = None,
        region: str | None = None,
        plan: str | None = None,
        mode: Literal["managed", "byok"] | None = None,
        postgres_version: str | None = None,
        idempotency_key: str | None = None,
    ) -> Project:
        """Provision a Postgres project (``db.project.create``, CONTRACT.md 2.1). It is billed.

        Args:
            name: what to call it.
            vendor: pin one provider; needed with ``mode="byok"``.
            region: where to provision it.
            plan: its size.
            mode: on the gateway's account with the vendor, or on yours.
            postgres_version: the major version, for example ``"17"``.
            idempotency_key: the same key gives the same project back for 24 hours; a fresh one by default.

        Returns:
            The project with its connection URI.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            InsufficientCreditError: the wallet is empty.
            InfraiError: whatever else the call may raise.
        """
        arguments: dict[str, object] = {
            "name": name,
            "vendor": vendor,
            "region": region,
            "plan": plan,
            "mode": mode,
            "postgres_version": postgres_version,
        }
        return await self._core.call(PROJECT_CREATE, arguments, idempotency_key)

    async def get(self, id: str) -> Project:
        """Look a project up (``db.project.get``).

        Args:
            id: the project's id.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._core.call(PROJECT_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a project with its branches and snapshots (``db.project.delete``). There is no way back.

        Args:
            id: the project's id.
            idempotency_key: a fresh one by default.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._core.call(PROJECT_DELETE, {"id": id}, idempotency_key)

    def list(
        self,
        *,
        cursor: str | None = None,
        limit: int | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[Project]:
        """List the account's projects (``db.project.list``). Nothing is sent until the cursor is read.

        Args:
            cursor: where to resume, from ``next_cursor`` of an earlier listing.
            limit: items a page; the service's choice by default.
            max_items: items in all.
            prefetch: so many pages are fetched ahead while the one in hand is read; none by default.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        return self._core.cursor(PROJECT_LIST, {"limit": limit}, cursor=cursor, max_items=max_items, prefetch=prefetch)


class Branches(Resource):
    """``client.db.branch``."""

    async def create(
        self,
        *,
        project_id: str,
        branch_name: str,
        from_branch: str | None = None,
        idempotency_key: str | None = None,
    ) -> Branch:
        """Branch a project: a copy of its database, isolated from it (``db.branch.create``). It is billed.

        Args:
            project_id: the project.
            branch_name: what to call the branch.
            from_branch: the branch to copy; the project itself by default.
            idempotency_key: the same key gives the same branch back for 24 hours; a fresh one by default.

        Returns:
            The branch with its connection URI.

        Raises:
            InvalidArgument: an argument is wrong; nothing was sent.
            NotFoundError: there is no such project or branch.
            ConflictError: the project has a branch of that name.
            InfraiError: whatever else the call may raise.
        """
        arguments: dict[str, object] = {
            "project_id": project_id,
            "branch_name": branch_name,
            "from_branch": from_branch,
        }
        return await self._core.call(BRANCH_CREATE, arguments, idempotency_key)

    async def get(self, id: str) -> Branch:
        """Look a branch up (``db.branch.get``).

        Args:
            id: the branch's id.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._core.call(BRANCH_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a branch (``db.branch.delete``).

        Args:
            id: the branch's id.
            idempotency_key: a fresh one by default.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._core.call(BRANCH_DELETE, {"id": id}, idempotency_key)

    def list(
        self,
        *,
        project_id: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[Branch]:
        """List branches (``db.branch.list``). Nothing is sent until the cursor is read.

        Args:
            project_id: only this project's; every project's by default.
            cursor: where to resume, from ``next_cursor`` of an earlier listing.
            limit: items a page; the service's choice by default.
            max_items: items in all.
            prefetch: so many pages are fetched ahead while the one in hand is read; none by default.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        arguments: dict[str, object] = {"project_id": project_id, "limit": limit}
        return self._core.cursor(BRANCH_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)


class Snapshots(Resource):
    """``client.db.snapshot``."""

    async def create(
        self, *, project_id: str, label: str | None = None, idempotency_key: str | None = None
    ) -> Snapshot:
        """Freeze a project as it is now (``db.snapshot.create``). It is billed.

        Args:
            project_id: the project.
            label: what to call the snapshot.
            idempotency_key: the same key gives the same snapshot back for 24 hours; a fresh one by default.

        Raises:
            NotFoundError: there is no such project.
            InfraiError: whatever else the call may raise.
        """
        return await self._core.call(SNAPSHOT_CREATE, {"project_id": project_id, "label": label}, idempotency_key)

    async def get(self, id: str) -> Snapshot:
        """Look a snapshot up (``db.snapshot.get``).

        Args:
            id: the snapshot's id.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._core.call(SNAPSHOT_GET, {"id": id})

    async def restore(self, id: str, *, new_name: str | None = None, idempotency_key: str | None = None) -> Project:
        """Make a new project of a snapshot (``db.snapshot.restore``). It is billed.

        Args:
            id: the snapshot's id.
            new_name: what to call the project; the source's name with ``-restored`` by default.
            idempotency_key: the same key gives the same project back for 24 hours; a fresh one by default.

        Returns:
            The new project; the documentation promises its id, name and connection URI.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._core.call(SNAPSHOT_RESTORE, {"id": id, "new_name": new_name}, idempotency_key)

    def list(
        self,
        *,
        project_id: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        max_items: int | None = None,
        prefetch: int = 0,
    ) -> Cursor[Snapshot]:
        """List snapshots (``db.snapshot.list``). Nothing is sent until the cursor is read.

        Args:
            project_id: only this project's; every project's by default.
            cursor: where to resume, from ``next_cursor`` of an earlier listing.
            limit: items a page; the service's choice by default.
            max_items: items in all.
            prefetch: so many pages are fetched ahead while the one in hand is read; none by default.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        arguments: dict[str, object] = {"project_id": project_id, "limit": limit}
        return self._core.cursor(SNAPSHOT_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)
