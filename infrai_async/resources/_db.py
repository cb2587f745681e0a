"""``client.db``: Postgres projects, branches and snapshots.

Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#21-db
"""

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
        """Projects, each a database of its own."""
        return Projects(self._dispatcher)

    @cached_property
    def branch(self) -> Branches:
        """Branches: isolated copies of a project."""
        return Branches(self._dispatcher)

    @cached_property
    def snapshot(self) -> Snapshots:
        """Snapshots: point-in-time copies of a project."""
        return Snapshots(self._dispatcher)

    def inventory(
        self,
        *,
        concurrency: int = 32,
        checkpoint: str | os.PathLike[str] | None = None,
        on_error: OnError[Project] = None,
        progress: Progress = False,
    ) -> Inventory:
        """List every project with its branches and snapshots; each project is yielded when it is complete.

        With ``checkpoint``, an interrupted inventory resumes when it is called again with the same file, and every
        project is yielded at least once. A project counts as done when the next one is requested, or when
        ``on_error`` has returned for it. Projects created or deleted during the listing may or may not be included.
        The checkpoint file contains ids and cursors only, serves one inventory at a time, and is removed at the end.

        Args:
            concurrency: number of projects processed at once, with two calls each.
            checkpoint: path of the checkpoint file, created if missing; no checkpoint when omitted.
            on_error: plain or asynchronous function, called with a project and the error that ended the listing of
                its branches or snapshots; the inventory then continues. Without it the first error ends the
                inventory.
            progress: ``True`` for a progress bar, or a function called with ``(done, total)`` projects; ``total`` is
                ``None`` until all projects are listed.

        Returns:
            An ``Inventory``, an iterator of ``ProjectInventory``. Nothing is sent until it is read.

        Raises:
            InvalidArgument: an argument is invalid.
            ConfigurationError: while reading: the file is not a checkpoint, or cannot be read or written.
        """
        return Inventory(
            lambda cursor: self.project.list(cursor=cursor),
            self._inspect_project,
            concurrency=concurrency,
            checkpoint=checkpoint,
            on_error=on_error,
            progress=progress,
        )

    async def _inspect_project(self, project: Project) -> ProjectInventory | None:
        """Return a project's branches and snapshots; ``None`` if the project has been deleted meanwhile."""
        try:
            branches, snapshots = await _both(
                self.branch.list(project_id=project.id).collect(), self.snapshot.list(project_id=project.id).collect()
            )
        except NotFoundError:
            if await self._exists(project.id):
                raise
            return None
        return ProjectInventory(project=project, branches=tuple(branches), snapshots=tuple(snapshots))

    async def _exists(self, id: str) -> bool:
        try:
            await self.project.get(id)
        except NotFoundError:
            return False
        return True


async def _both(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Await two coroutines concurrently; the first error cancels the other and is raised unchanged."""
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
        """Create a Postgres project (``db.project.create``). This call is billed.

        Args:
            name: name of the project.
            vendor: provider to use; the service chooses when omitted. Required with ``mode="byok"``.
            region: region of the database.
            plan: size of the database.
            mode: ``"managed"`` to use the service's account with the vendor, ``"byok"`` to use your own.
            postgres_version: Postgres major version, for example ``"17"``.
            idempotency_key: a repeated call with the same key returns the same project for 24 hours; generated when
                omitted.

        Returns:
            The new ``Project`` with its ``id`` and ``connection_uri``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            InsufficientCreditError: the wallet is empty.
            InfraiError: the call failed for another reason.
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
        """Get a project by id (``db.project.get``).

        Args:
            id: id of the project.

        Returns:
            The ``Project`` with its ``connection_uri``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no project has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(PROJECT_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a project with its branches and snapshots (``db.project.delete``). This cannot be undone.

        Args:
            id: id of the project.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the project was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no project has this id.
            InfraiError: the call failed for another reason.
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
            cursor: position to resume from, the ``next_cursor`` of an earlier listing.
            limit: items per page; the service decides when omitted.
            max_items: maximum number of items over all pages; no limit when omitted.
            prefetch: number of pages to fetch ahead while the current page is read, 100 at most.

        Returns:
            A ``Cursor`` of ``Project``; its pages are fetched, and their errors raised, as it is read.

        Raises:
            InvalidArgument: an argument is invalid.
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
        """Create a branch, an isolated copy of a project's database (``db.branch.create``). This call is billed.

        Args:
            project_id: id of the project.
            branch_name: name of the branch.
            from_branch: name or id of the branch to copy; the project itself when omitted (contract D28).
            idempotency_key: a repeated call with the same key returns the same branch for 24 hours; generated when
                omitted.

        Returns:
            The new ``Branch`` with its ``id`` and ``connection_uri``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the project or the branch to copy does not exist.
            ConflictError: the project already has a branch with this name.
            InfraiError: the call failed for another reason.

        Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d28
        """
        arguments: dict[str, object] = {
            "project_id": project_id,
            "branch_name": branch_name,
            "from_branch": from_branch,
        }
        return await self._dispatcher.call(BRANCH_CREATE, arguments, idempotency_key)

    async def get(self, id: str) -> Branch:
        """Get a branch by id (``db.branch.get``).

        Args:
            id: id of the branch.

        Returns:
            The ``Branch`` with its ``connection_uri``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no branch has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(BRANCH_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a branch (``db.branch.delete``). This cannot be undone.

        Args:
            id: id of the branch.
            idempotency_key: value of the ``Idempotency-Key`` header; generated when omitted.

        Returns:
            An ``Ack``, true when the branch was deleted.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no branch has this id.
            InfraiError: the call failed for another reason.
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
            project_id: id of the project; all projects when omitted.
            cursor: position to resume from, the ``next_cursor`` of an earlier listing.
            limit: items per page; the service decides when omitted.
            max_items: maximum number of items over all pages; no limit when omitted.
            prefetch: number of pages to fetch ahead while the current page is read, 100 at most.

        Returns:
            A ``Cursor`` of ``Branch``; its pages are fetched, and their errors raised, as it is read.

        Raises:
            InvalidArgument: an argument is invalid.
        """
        arguments: dict[str, object] = {"project_id": project_id, "limit": limit}
        return self._dispatcher.cursor(BRANCH_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)


class Snapshots(Resource):
    """``client.db.snapshot``."""

    async def create(
        self, *, project_id: str, label: str | None = None, idempotency_key: str | None = None
    ) -> Snapshot:
        """Take a snapshot of a project's current state (``db.snapshot.create``). This call is billed.

        Args:
            project_id: id of the project.
            label: label of the snapshot.
            idempotency_key: a repeated call with the same key returns the same snapshot for 24 hours; generated when
                omitted.

        Returns:
            The new ``Snapshot`` with its ``id`` and ``created_at``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: the project does not exist.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(SNAPSHOT_CREATE, {"project_id": project_id, "label": label}, idempotency_key)

    async def get(self, id: str) -> Snapshot:
        """Get a snapshot by id (``db.snapshot.get``).

        Args:
            id: id of the snapshot.

        Returns:
            The ``Snapshot`` with ``project_id``, ``label`` and ``created_at``.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no snapshot has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(SNAPSHOT_GET, {"id": id})

    async def restore(self, id: str, *, new_name: str | None = None, idempotency_key: str | None = None) -> Project:
        """Restore a snapshot into a new project (``db.snapshot.restore``). This call is billed.

        Args:
            id: id of the snapshot.
            new_name: name of the new project; the source project's name with ``-restored`` when omitted.
            idempotency_key: a repeated call with the same key returns the same project for 24 hours; generated when
                omitted.

        Returns:
            The new ``Project``. The service guarantees its ``id``, ``name`` and ``connection_uri`` only.

        Raises:
            InvalidArgument: an argument is invalid; nothing was sent.
            NotFoundError: no snapshot has this id.
            InfraiError: the call failed for another reason.
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
            project_id: id of the project; all projects when omitted.
            cursor: position to resume from, the ``next_cursor`` of an earlier listing.
            limit: items per page; the service decides when omitted.
            max_items: maximum number of items over all pages; no limit when omitted.
            prefetch: number of pages to fetch ahead while the current page is read, 100 at most.

        Returns:
            A ``Cursor`` of ``Snapshot``; its pages are fetched, and their errors raised, as it is read.

        Raises:
            InvalidArgument: an argument is invalid.
        """
        arguments: dict[str, object] = {"project_id": project_id, "limit": limit}
        return self._dispatcher.cursor(SNAPSHOT_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)
