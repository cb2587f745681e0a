"""The results of the demo, counted from responses and never from requests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from decimal import Decimal

import attrs

from infrai_async import Branch, Model, Project, Stats


@attrs.define
class Tally:
    """The results so far.

    Attributes:
        started: when the demo started, by ``time.monotonic``.
        pages: the number of pages that were listed.
        ready_at: the time when the last project or branch of each region was created, in seconds since the start.
        stats: the statistics of the client.
        ended: when the work ended and clearing up started, by ``time.monotonic``.
        interrupted: whether a signal ended the demo.
    """

    started: float = attrs.field(factory=time.monotonic)
    projects: list[Project] = attrs.field(factory=list)
    branches: list[Branch] = attrs.field(factory=list)
    listed_projects: list[Project] = attrs.field(factory=list)
    listed_branches: list[Branch] = attrs.field(factory=list)
    pages: int = 0
    ready_at: dict[str | None, float] = attrs.field(factory=dict)
    stats: Stats = attrs.field(factory=Stats)
    ended: float | None = None
    interrupted: bool = False

    def end(self) -> None:
        """Record the end of the work; only clearing up follows."""
        self.ended = time.monotonic()

    def seconds(self) -> float:
        """Return the duration of the work in seconds, up to now or to its end."""
        return round((self.ended or time.monotonic()) - self.started, 2)

    def cleanup_seconds(self) -> float:
        """Return the duration of clearing up so far, in seconds."""
        return 0.0 if self.ended is None else round(time.monotonic() - self.ended, 2)

    def add_project(self, project: Project) -> None:
        """Count a created project."""
        self.projects.append(project)
        self.ready_at[project.region] = self.seconds()

    def add_branch(self, branch: Branch, project: Project) -> None:
        """Count a created branch."""
        self.branches.append(branch)
        self.ready_at[project.region] = self.seconds()

    def by_region(self) -> list[dict[str, object]]:
        """Return a record for each region, and one for the calls that belong to no region."""
        rows, rest = [], self.stats.cost_usd
        for region, seconds in sorted(self.ready_at.items(), key=str):
            projects = [project for project in self.projects if project.region == region]
            ids = {project.id for project in projects}
            branches = [branch for branch in self.branches if branch.project_id in ids]
            cost = _cost([*projects, *branches])
            rest -= cost
            rows.append(_row(region, len(projects), len(branches), seconds, cost))
        return [*rows, _row("other calls", 0, 0, None, rest)]

    def total(self) -> dict[str, object]:
        """Return the record of the totals, to be shown below the regions."""
        return _row("all", len(self.projects), len(self.branches), self.seconds(), self.stats.cost_usd)

    def summary(self, *, ok: bool) -> dict[str, object]:
        """Return the results of the whole demo."""
        ending: dict[str, object] = {"interrupted": True} if self.interrupted else {}
        return ending | {
            "ok": ok,
            "projects": len(self.projects),
            "branches": len(self.branches),
            "regions": len(self.ready_at),
            "listed_projects": len(self.listed_projects),
            "listed_branches": len(self.listed_branches),
            "pages": self.pages,
            "calls": self.stats.calls,
            "seconds": self.seconds(),
            "cleanup_seconds": self.cleanup_seconds(),
            "cost_usd": float(self.stats.cost_usd),
        }


def _cost(models: Iterable[Model]) -> Decimal:
    return sum((model.metadata.cost_usd or Decimal(0) for model in models), Decimal(0))


def _row(region: str | None, projects: int, branches: int, seconds: float | None, cost: Decimal) -> dict[str, object]:
    return {
        "region": region,
        "projects": projects,
        "branches": branches,
        "seconds": seconds,
        "cost_usd": float(cost),
    }
