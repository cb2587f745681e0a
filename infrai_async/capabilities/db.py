"""Postgres capabilities: projects, branches and snapshots (contract 2.1)."""

from __future__ import annotations

from typing import Final

from infrai_async.capabilities.table import PAGING, body, define, path, query
from infrai_async.models import Ack, Branch, Project, Snapshot

PROJECT_CREATE: Final = define(
    "db.project.create",
    "POST",
    "/db/project/create",
    body("name", required=True),
    body("vendor"),
    body("region"),
    body("plan"),
    body("mode", choices=("managed", "byok"), needs={"byok": "vendor"}),
    body("postgres_version"),
    returns=Project,
    deduplicates=True,
)
PROJECT_GET: Final = define("db.project.get", "GET", "/db/project/get/{id}", path("id"), returns=Project)
PROJECT_LIST: Final = define("db.project.list", "GET", "/db/project/list", *PAGING, returns=Project, paged=True)
PROJECT_DELETE: Final = define("db.project.delete", "DELETE", "/db/project/delete/{id}", path("id"), returns=Ack)

BRANCH_CREATE: Final = define(
    "db.branch.create",
    "POST",
    "/db/branch/create",
    body("project_id", required=True),
    body("branch_name", required=True),
    body("from_branch"),
    returns=Branch,
    deduplicates=True,
)
BRANCH_GET: Final = define("db.branch.get", "GET", "/db/branch/get/{id}", path("id"), returns=Branch)
BRANCH_LIST: Final = define(
    "db.branch.list", "GET", "/db/branch/list", query("project_id"), *PAGING, returns=Branch, paged=True
)
BRANCH_DELETE: Final = define("db.branch.delete", "DELETE", "/db/branch/delete/{id}", path("id"), returns=Ack)

SNAPSHOT_CREATE: Final = define(
    "db.snapshot.create",
    "POST",
    "/db/snapshot/create",
    body("project_id", required=True),
    body("label"),
    returns=Snapshot,
    deduplicates=True,
)
SNAPSHOT_GET: Final = define("db.snapshot.get", "GET", "/db/snapshot/get/{id}", path("id"), returns=Snapshot)
SNAPSHOT_LIST: Final = define(
    "db.snapshot.list", "GET", "/db/snapshot/list", query("project_id"), *PAGING, returns=Snapshot, paged=True
)
SNAPSHOT_RESTORE: Final = define(
    "db.snapshot.restore",
    "POST",
    "/db/snapshot/restore/{id}",
    path("id", also=("snapshot_id",)),
    body("new_name"),
    returns=Project,
    deduplicates=True,
)
