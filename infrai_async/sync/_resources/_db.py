"""``client.db`` of the blocking client.

Written by ``python -m tools.blocking`` from ``infrai_async/resources/_db.py``: change that instead.
"""

from __future__ import annotations

import os
from functools import cached_property, partial
from typing import Literal

from infrai_async._display.progress import Progress
from infrai_async._listing.fan_out import OnError
from infrai_async.models import Ack, Branch, Project, Snapshot
from infrai_async.resources import _db
from infrai_async.sync._facade import Cursor, Facade
from infrai_async.sync._many import Inventory, inventory


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
        __tracebackhide__ = True
        return inventory(
            self._async.inventory(concurrency=concurrency, checkpoint=checkpoint, on_error=on_error),
            self._runner,
            progress,
        )


class Projects(Facade[_db.Projects]):
    """``client.db.project``."""

    def create(
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
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.create,
                name=name,
                vendor=vendor,
                region=region,
                plan=plan,
                mode=mode,
                postgres_version=postgres_version,
                idempotency_key=idempotency_key,
            )
        )

    def get(self, id: str) -> Project:
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
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.get, id))

    def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
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
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.delete, id, idempotency_key=idempotency_key))

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
        __tracebackhide__ = True
        return Cursor(
            self._async.list(cursor=cursor, limit=limit, max_items=max_items, prefetch=prefetch), self._runner
        )


class Branches(Facade[_db.Branches]):
    """``client.db.branch``."""

    def create(
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
        __tracebackhide__ = True
        return self._runner.run(
            partial(
                self._async.create,
                project_id=project_id,
                branch_name=branch_name,
                from_branch=from_branch,
                idempotency_key=idempotency_key,
            )
        )

    def get(self, id: str) -> Branch:
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
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.get, id))

    def delete(self, id: str, *, idempotency_key: str | None = None) -> Ack:
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
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.delete, id, idempotency_key=idempotency_key))

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
        __tracebackhide__ = True
        return Cursor(
            self._async.list(project_id=project_id, cursor=cursor, limit=limit, max_items=max_items, prefetch=prefetch),
            self._runner,
        )


class Snapshots(Facade[_db.Snapshots]):
    """``client.db.snapshot``."""

    def create(self, *, project_id: str, label: str | None = None, idempotency_key: str | None = None) -> Snapshot:
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
        __tracebackhide__ = True
        return self._runner.run(
            partial(self._async.create, project_id=project_id, label=label, idempotency_key=idempotency_key)
        )

    def get(self, id: str) -> Snapshot:
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
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.get, id))

    def restore(self, id: str, *, new_name: str | None = None, idempotency_key: str | None = None) -> Project:
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
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.restore, id, new_name=new_name, idempotency_key=idempotency_key))

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
        __tracebackhide__ = True
        return Cursor(
            self._async.list(project_id=project_id, cursor=cursor, limit=limit, max_items=max_items, prefetch=prefetch),
            self._runner,
        )
