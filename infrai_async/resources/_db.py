"""``client.db``: Postgres projects, branches and snapshots (contract 2.1)."""

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
    """Managed Postgres (``client.db``)."""

    @cached_property
    def project(self) -> Projects:
        """Projects, each with a Postgres database of its own."""
        return Projects(self._dispatcher)

    @cached_property
    def branch(self) -> Branches:
        """Branches, isolated copies of a project's database."""
        return Branches(self._dispatcher)

    @cached_property
    def snapshot(self) -> Snapshots:
        """Snapshots, each a project's data at one moment."""
        return Snapshots(self._dispatcher)

    def inventory(
        self,
        *,
        concurrency: int = 32,
        checkpoint: str | os.PathLike[str] | None = None,
        on_error: OnError[Project] = None,
        progress: Progress = False,
    ) -> Inventory:
        """List every project with its branches and snapshots, many projects concurrently, each as it completes.

        With a checkpoint, an inventory that was killed at any point resumes when it is called again with the same
        file: every project is returned at least once. A project counts as done when the next one is requested, or
        when ``on_error`` has returned. Projects that are deleted or created during the inventory may or may not be
        included. The file contains ids and cursors only. It must not be used by two inventories at the same time, and
        is removed at the end.

        Args:
            concurrency: the number of projects to inspect concurrently, with two calls each.
            checkpoint: the path of the checkpoint file, which is created if it does not exist. None by default.
            on_error: a function of a project and the exception raised while its branches or snapshots were listed,
                plain or async. The inventory then continues with the other projects. Without it, the first exception
                ends the inventory.
            progress: ``True`` for a progress bar, or a function that is called with ``(done, total)`` projects;
                ``total`` is ``None`` until all projects are listed.

        Returns:
            An iterator of ``ProjectInventory``, each with a ``project``, its ``branches`` and its ``snapshots``.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            ConfigurationError: while it is read: the file is not a checkpoint, or cannot be read or written.
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
    """Await two coroutines concurrently; the first exception cancels the other and is raised unchanged."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class Projects(Resource):
    """Postgres projects (``client.db.project``)."""

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
            name: the project's name.
            vendor: the provider to use; required with ``mode="byok"``. The service chooses by default.
            region: the region to provision the project in. The service chooses by default.
            plan: the size of the project. The service chooses by default.
            mode: ``"managed"`` to use the service's own account with the vendor, ``"byok"`` to use yours.
            postgres_version: the major version of Postgres, for example ``"17"``.
            idempotency_key: the key that makes repeating this call safe: within 24 hours the same key returns the same
                project. A fresh key by default.

        Returns:
            The new ``Project``, with its ``id`` and ``connection_uri``.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
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
        """Get a project (``db.project.get``).

        Args:
            id: the project's id.

        Returns:
            The ``Project``, with its ``id``, ``name`` and ``connection_uri``.

        Raises:
            NotFoundError: no project has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(PROJECT_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a project with its branches and snapshots (``db.project.delete``). This cannot be undone.

        A 404 after an earlier attempt that may have succeeded counts as success (contract D17).

        Args:
            id: the project's id.
            idempotency_key: the key that makes repeating this call safe. A fresh key by default.

        Returns:
            An ``Ack``, truthy if the project was deleted.

        Raises:
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
            cursor: where to resume: the ``next_cursor`` of an earlier listing. The first page by default.
            limit: the maximum number of items per page. The service chooses by default.
            max_items: the maximum number of items over all pages. No limit by default.
            prefetch: the number of pages to fetch ahead of the one that is being read.

        Returns:
            A ``Cursor`` of ``Project`` models.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
        """
        return self._dispatcher.cursor(
            PROJECT_LIST, {"limit": limit}, cursor=cursor, max_items=max_items, prefetch=prefetch
        )


class Branches(Resource):
    """Branches of projects (``client.db.branch``)."""

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
            project_id: the project's id.
            branch_name: the new branch's name, unique within the project.
            from_branch: the branch to copy. The project itself by default.
            idempotency_key: the key that makes repeating this call safe: within 24 hours the same key returns the same
                branch. A fresh key by default.

        Returns:
            The new ``Branch``, with its ``id`` and ``connection_uri``.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
            NotFoundError: the project or the branch to copy does not exist.
            ConflictError: the project already has a branch of this name.
            InfraiError: the call failed for another reason.
        """
        arguments: dict[str, object] = {
            "project_id": project_id,
            "branch_name": branch_name,
            "from_branch": from_branch,
        }
        return await self._dispatcher.call(BRANCH_CREATE, arguments, idempotency_key)

    async def get(self, id: str) -> Branch:
        """Get a branch (``db.branch.get``).

        Args:
            id: the branch's id.

        Returns:
            The ``Branch``, with its ``id``, ``branch_name``, ``project_id`` and ``connection_uri``.

        Raises:
            NotFoundError: no branch has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(BRANCH_GET, {"id": id})

    async def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
        """Delete a branch (``db.branch.delete``). This cannot be undone.

        A 404 after an earlier attempt that may have succeeded counts as success (contract D17).

        Args:
            id: the branch's id.
            idempotency_key: the key that makes repeating this call safe. A fresh key by default.

        Returns:
            An ``Ack``, truthy if the branch was deleted.

        Raises:
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
            project_id: the project whose branches to list. All projects by default.
            cursor: where to resume: the ``next_cursor`` of an earlier listing. The first page by default.
            limit: the maximum number of items per page. The service chooses by default.
            max_items: the maximum number of items over all pages. No limit by default.
            prefetch: the number of pages to fetch ahead of the one that is being read.

        Returns:
            A ``Cursor`` of ``Branch`` models.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
        """
        arguments: dict[str, object] = {"project_id": project_id, "limit": limit}
        return self._dispatcher.cursor(BRANCH_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)


class Snapshots(Resource):
    """Snapshots of projects (``client.db.snapshot``)."""

    async def create(
        self, *, project_id: str, label: str | None = None, idempotency_key: str | None = None
    ) -> Snapshot:
        """Take a snapshot of a project (``db.snapshot.create``). This call is billed.

        Args:
            project_id: the project's id.
            label: a label for the snapshot. None by default.
            idempotency_key: the key that makes repeating this call safe: within 24 hours the same key returns the same
                snapshot. A fresh key by default.

        Returns:
            The ``Snapshot``, with its ``id``, ``project_id``, ``created_at`` and ``label``.

        Raises:
            NotFoundError: the project does not exist.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(SNAPSHOT_CREATE, {"project_id": project_id, "label": label}, idempotency_key)

    async def get(self, id: str) -> Snapshot:
        """Get a snapshot (``db.snapshot.get``).

        Args:
            id: the snapshot's id.

        Returns:
            The ``Snapshot``, with its ``id``, ``project_id``, ``created_at`` and ``label``.

        Raises:
            NotFoundError: no snapshot has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(SNAPSHOT_GET, {"id": id})

    async def restore(self, id: str, *, new_name: str | None = None, idempotency_key: str | None = None) -> Project:
        """Restore a snapshot to a new project (``db.snapshot.restore``). This call is billed.

        Args:
            id: the snapshot's id.
            new_name: the new project's name. The source's name with ``-restored`` appended by default.
            idempotency_key: the key that makes repeating this call safe: within 24 hours the same key returns the same
                project. A fresh key by default.

        Returns:
            The new ``Project``; only its ``id``, ``name`` and ``connection_uri`` are documented to be present.

        Raises:
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
            project_id: the project whose branches to list. All projects by default.
            cursor: where to resume: the ``next_cursor`` of an earlier listing. The first page by default.
            limit: the maximum number of items per page. The service chooses by default.
            max_items: the maximum number of items over all pages. No limit by default.
            prefetch: the number of pages to fetch ahead of the one that is being read.

        Returns:
            A ``Cursor`` of ``Snapshot`` models.

        Raises:
            InvalidArgument: an argument is wrong. Nothing was sent.
        """
        arguments: dict[str, object] = {"project_id": project_id, "limit": limit}
        return self._dispatcher.cursor(SNAPSHOT_LIST, arguments, cursor=cursor, max_items=max_items, prefetch=prefetch)
