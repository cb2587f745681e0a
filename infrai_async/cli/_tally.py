"""What the demo did, counted from what it got back and never from what was asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from decimal import Decimal

import attrs

from infrai_async import Branch, Model, Project, Stats


@attrs.define
class Tally:
    """What was done so far.

    Attributes:
        pages: how many were read for the lists.
        ready_at: by region, when its last project or branch was there, in seconds after the start.
        stats: the client's own figures.
        ended: when the work was over, and clearing up began.
        interrupted: whether a signal ended it.
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
        """Say that the work is over; what follows is clearing up."""
        self.ended = time.monotonic()

    def seconds(self) -> float:
        """Return how long the work has taken, so far or in the end."""
        return round((self.ended or time.monotonic()) - self.started, 2)

    def cleanup_seconds(self) -> float:
        """Return how long clearing up has taken so far."""
        return 0.0 if self.ended is None else round(time.monotonic() - self.ended, 2)

    def add_project(self, project: Project) -> None:
        """Count a project that was created."""
        self.projects.append(project)
        self.ready_at[project.region] = self.seconds()

    def add_branch(self, branch: Branch, project: Project) -> None:
        """Count a branch of a project that was created."""
        self.branches.append(branch)
        self.ready_at[project.region] = self.seconds()

    def by_region(self) -> list[dict[str, object]]:
        """Return a record for each region, and one for the calls that belong to none."""
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
        """Return the record that stands below those of the regions."""
        return _row("all", len(self.projects), len(self.branches), self.seconds(), self.stats.cost_usd)

    def summary(self, *, ok: bool) -> dict[str, object]:
        """Return the figures of the whole."""
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


def _cost(made: Iterable[Model]) -> Decimal:
    return sum((model.metadata.cost_usd or Decimal(0) for model in made), Decimal(0))


def _row(region: str | None, projects: int, branches: int, seconds: float | None, cost: Decimal) -> dict[str, object]:
    return {
        "region": region,
        "projects": projects,
        "branches": branches,
        "seconds": seconds,
        "cost_usd": float(cost),
    }
