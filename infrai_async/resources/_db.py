"""``client.db``: Postgres projects, branches and snapshots (CONTRACT.md 2.1)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from functools import cached_property
from typing import Any, Literal, TypeVar

from infrai_async._dispatch import Resource
from infrai_async._display.progress import Progress
from infrai_async._listing.cursor import Cursor
from infrai_async._listing.fan_out import OnError
from infrai_async._listing.inventory import Inventory
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
from infrai_async.errors import NotFoundError
from infrai_async.models import Ack, Branch, Project, ProjectInventory, Snapshot

A = TypeVar("A")
B = TypeVar("B")


class Db(Resource):
    """Managed Postgres."""

    @cached_property
    def project(self) -> Projects:
        """Projects: a database each."""
        return Projects(self._dispatcher)

    @cached_property
    def branch(self) -> Branches:
        """Branches: copies of a project to try things in."""
        return Branches(self._dispatcher)

    @cached_property
    def snapshot(self) -> Snapshots:
        """Snapshots: a project frozen at one moment."""
        return Snapshots(self._dispatcher)

    def inventory(
        self,
        *,
        concurrency: int = 32,
        checkpoint: str | os.PathLike[str] | None = None,
        on_error: OnError[Project] = None,
        progress: Progress = False,
    ) -> Inventory:
        """List every project with its branches and snapshots, many projects at a time, each as it completes.

        With a checkpoint it can be killed at any point, and goes on where it was when it is called again with the
        same file: every project comes at least once. One counts as done when the next is asked for, or when
        ``on_error`` has returned. Projects that are deleted meanwhile may be missing, and new ones may be there. The
        file holds ids and cursors, and belongs to one inventory at a time; it is removed at the end.

        Args:
            concurrency: how many projects are looked into at once, by two calls each.
            checkpoint: the path of a file, made when there is none.
            on_error: called with a project and the error that listing its branches or snapshots ended in, plain or
                asynchronous, and the rest goes on. Without it the first error ends everything.
            progress: ``True`` for a bar, or a function that is called with ``(done, total)`` projects; the total is
                ``None`` until all are listed.

        Raises:
            InvalidArgument: an argument is wrong.
            ConfigurationError: while it is read: the file is no checkpoint, or cannot be read and written.
        """
        return Inventory(
            lambda cursor: self.project.list(cursor=cursor),
            self._look_into,
            concurrency=concurrency,
            checkpoint=checkpoint,
            on_error=on_error,
            progress=progress,
        )

    async def _look_into(self, project: Project) -> ProjectInventory | None:
        """Return what a project has; ``None`` when it has been deleted meanwhile."""
        try:
            branches, snapshots = await _both(
                self.branch.list(project_id=project.id).collect(), self.snapshot.list(project_id=project.id).collect()
            )
        except NotFoundError:
            if await self._is_there(project.id):
                raise
            return None
        return ProjectInventory(project=project, branches=tuple(branches), snapshots=tuple(snapshots))

    async def _is_there(self, id: str) -> bool:
        try:
            await self.project.get(id)
        except NotFoundError:
            return False
        return True


async def _both(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Await two at once; the first error ends the other, and is raised as it is."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


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
        return await self._dispatcher.call(PROJECT_CREATE, arguments, idempotency_key)

    async def get(self, id: str) -> Project:
        """Look a project up (``db.project.get``).

        Args:
            id: the project's id.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._dispatcher.call(PROJECT_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a project with its branches and snapshots (``db.project.delete``). There is no way back.

        Args:
            id: the project's id.
            idempotency_key: a fresh one by default.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._dispatcher.call(PROJECT_DELETE, {"id": id}, idempotency_key)

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
        return self._dispatcher.cursor(
            PROJECT_LIST, {"limit": limit}, cursor=cursor, max_items=max_items, prefetch=prefetch
        )


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
        return await self._dispatcher.call(BRANCH_CREATE, arguments, idempotency_key)

    async def get(self, id: str) -> Branch:
        """Look a branch up (``db.branch.get``).

        Args:
            id: the branch's id.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._dispatcher.call(BRANCH_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a branch (``db.branch.delete``).

        Args:
            id: the branch's id.
            idempotency_key: a fresh one by default.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._dispatcher.call(BRANCH_DELETE, {"id": id}, idempotency_key)

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
        return self._dispatcher.cursor(BRANCH_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)


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
        return await self._dispatcher.call(SNAPSHOT_CREATE, {"project_id": project_id, "label": label}, idempotency_key)

    async def get(self, id: str) -> Snapshot:
        """Look a snapshot up (``db.snapshot.get``).

        Args:
            id: the snapshot's id.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._dispatcher.call(SNAPSHOT_GET, {"id": id})

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
        return await self._dispatcher.call(SNAPSHOT_RESTORE, {"id": id, "new_name": new_name}, idempotency_key)

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
        return self._dispatcher.cursor(SNAPSHOT_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)
