"""What openai's generator would make of this service: models for its client, which is as most generated SDKs are.

They have the fields that the answers have and no others, which is less than a generator writes.
"""

from __future__ import annotations

from datetime import datetime

from openai import BaseModel
from openai._base_client import BaseAsyncPage, BasePage, PageInfo  # where its own pages have them from


class Project(BaseModel):
    id: str
    name: str
    region: str
    connection_uri: str
    created_at: datetime


class Response(BaseModel):
    ok: bool
    data: Project


class Listed(BaseModel):
    items: list[Project]
    next_cursor: str | None = None


class Page(BaseAsyncPage[Project], BasePage[Project]):
    data: Listed

    def _get_page_items(self) -> list[Project]:
        return self.data.items

    def next_page_info(self) -> PageInfo | None:
        return PageInfo(params={"cursor": self.data.next_cursor}) if self.data.next_cursor else None
