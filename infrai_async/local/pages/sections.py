"""What stands on the gateway's page: a section for each kind of thing, a line for each column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import Final

from infrai_async.local.http.call_log import RecentCall
from infrai_async.local.http.envelope import NANO
from infrai_async.local.pages.markup import (
    NOTHING,
    Column,
    Html,
    badge,
    code,
    count,
    created,
    dollars,
    empty,
    link,
    many,
    moment,
    plain,
    section,
    share,
    size,
    table,
    text,
)
from infrai_async.local.pages.queries import Item, Listing, Overview
from infrai_async.local.services.base import ServiceContext
from infrai_async.local.services.cdn import edge_hostname
from infrai_async.models import mask_uri


def sections(overview: Overview, context: ServiceContext) -> Html:
    """Write the page's sections."""
    several = overview.accounts.total > 1
    return Html(
        "".join(
            (
                _wallet(overview.account),
                _projects(overview.projects, context),
                _buckets(overview.buckets, context),
                _distributions(overview.distributions, context),
                _flags(overview.flags),
                _calls(context.recent.newest(), several=several),
                _accounts(overview),
            )
        )
    )


def about(account: Item, context: ServiceContext) -> Html:
    """Write which gateway this is, how it is, and whose things are shown."""
    return Html(
        f'<p id="about" data-live>{code(context.base_url)} {_postgres(context)} '
        f'<span class="quiet">account</span> {code(account["id"])}</p>'
    )


def _postgres(context: ServiceContext) -> Html:
    if context.postgres is not None:
        return badge(f"Postgres {context.postgres.version}", "good")
    if context.postgres_missing is None:
        return badge("Postgres is being started", "quiet")
    return Html(f"{badge('no Postgres', 'bad')} <span>{text(context.postgres_missing)}</span>")


def _money(nano: int) -> Html:
    return dollars(Decimal(nano) / NANO)


def _note(listing: Listing) -> str:
    return count(listing.total) + ("" if listing.is_exact else " or more") if listing.items else ""


def _more(listing: Listing) -> str:
    return f"and {listing.more:,} more{'' if listing.is_exact else ' at least'}" if listing.more else ""


def _listed(
    id: str,
    title: str,
    listing: Listing,
    columns: Sequence[Column],
    how: Html,
    groups: Iterable[Sequence[Item]] | None = None,
) -> Html:
    body = table(columns, groups or [listing.items], more=_more(listing)) if listing.items else how
    return section(id, title, _note(listing), body)


# --- the wallet --------------------------------------------------------------------------------------------------


def _wallet(account: Item) -> Html:
    words = f'<p class="balance">{_money(account["nano"])} <small>USD</small></p>'
    page = link(account["checkout"], Html("top up"))
    hint = f'<p class="quiet">{page}, or open the checkout_url of {code(_TOP_UP)}</p>'
    return section("wallet", "Wallet", "", Html(words + hint))


_TOP_UP: Final = "await client.account.topup(amount_usd=5)"


# --- databases ---------------------------------------------------------------------------------------------------


def _projects(projects: Listing, context: ServiceContext) -> Html:
    columns = (
        Column("Project or branch", _name),
        Column("Connection URI, password masked", partial(_uri, context), kind="long"),
        Column("Made from", _origin),
        Column("Id", lambda item: code(item["id"])),
        Column("Created", created),
    )
    groups = [[project, *project["branches"].items] for project in projects.items]
    how = empty(
        "No project yet. The first, with the key that was printed when the gateway started:",
        "from infrai_async import AsyncInfrai",
        "",
        f'async with AsyncInfrai(api_key, base_url="{context.base_url}") as client:',
        '    project = await client.db.project.create(name="shop")',
        "    print(project.connection_uri)",
    )
    return _listed("projects", "Projects", projects, columns, how, groups)


def _name(item: Item) -> Html:
    if "name" not in item:
        return Html(f'<span class="branch">{text(item["branch_name"])}</span>')
    unseen = item["branches"].more
    note = f' <span class="quiet">and {many(unseen, "older branch", "older branches")}</span>' if unseen else ""
    return Html(f"{text(item['name'])}{note}")


def _origin(item: Item) -> Html:
    if "name" in item:
        kept = f", {many(item['snapshots'], 'snapshot', 'snapshots')}" if item["snapshots"] else ""
        return Html(f"Postgres {text(item['postgres_version'])}{kept}")
    return Html(f"branch of {text(item['from_branch'] or 'main')}")


def _uri(context: ServiceContext, item: Item) -> Html:
    if context.postgres is None:
        return NOTHING
    return code(mask_uri(context.postgres.uri(item["database"], "")))


# --- buckets, distributions, flags -------------------------------------------------------------------------------


def _buckets(buckets: Listing, context: ServiceContext) -> Html:
    here = context.s3 is None  # what is in another store, only that store can count
    columns = (
        Column("Bucket", lambda bucket: text(bucket["bucket"])),
        Column("Objects", lambda bucket: count(bucket["objects"]) if here else NOTHING, kind="number"),
        Column("Size", lambda bucket: size(bucket["bytes"]) if here else NOTHING, kind="number"),
        Column("Access", lambda bucket: text(bucket["acl"])),
        Column("Region", lambda bucket: text(bucket["region"])),
        Column("Id", lambda bucket: code(bucket["id"])),
        Column("Created", created),
    )
    how = empty("No bucket yet. The first is one line:", 'await client.storage.bucket.create(bucket="pictures")')
    return _listed("buckets", "Buckets", buckets, columns, how)


def _distributions(distributions: Listing, context: ServiceContext) -> Html:
    port = context.base_url.rpartition(":")[2]

    def edge(item: Item) -> Html:
        name = edge_hostname(item["id"])
        return link(f"http://{name}:{port}/", code(name))

    columns = (
        Column("Origin", lambda item: text(item["origin"])),
        Column("Edge", edge),
        Column("State", lambda item: badge(*(("deployed", "good") if item["enabled"] else ("disabled", "quiet")))),
        Column("Hit ratio", lambda item: share(item["hits"], item["hits"] + item["misses"]), kind="number"),
        Column("Requests", lambda item: count(item["hits"] + item["misses"]), kind="number"),
        Column("Served", lambda item: size(item["bytes_served"]), kind="number"),
        Column("TTL", lambda item: Html(f"{count(item['cache_ttl_seconds'])} s"), kind="number"),
        Column("Created", created),
    )
    example = 'await client.cdn.distribution.create(origin="http://127.0.0.1:8000")'
    how = empty("No distribution yet. The first is one line:", example)
    return _listed("distributions", "Distributions", distributions, columns, how)


def _flags(flags: Listing) -> Html:
    columns = (
        Column("Flag", lambda flag: text(flag["key"])),
        Column("State", _state),
        Column("Roll-out", _rollout),
        Column("Rules", lambda flag: count(len(flag["rules"])), kind="number"),
        Column("Type", lambda flag: text(flag["type"])),
        Column("Default", lambda flag: plain(flag["default_value"]), kind="long"),
        Column("Version", lambda flag: count(flag["version"]), kind="number"),
        Column("Created", created),
    )
    how = empty("No flag yet. The first is one line:", 'await client.flags.set(key="dark-mode", default_value=False)')
    return _listed("flags", "Flags", flags, columns, how)


def _state(flag: Item) -> Html:
    if flag["archived"]:
        return badge("archived", "quiet")
    return badge("on", "good") if flag["enabled"] else badge("off", "quiet")


def _rollout(flag: Item) -> Html:
    rollout = flag["rollout"]
    if not rollout:
        return NOTHING
    variants = rollout.get("variants") or ()
    split = f", {many(len(variants), 'variant', 'variants')}" if variants else ""
    return Html(f"{rollout['percentage']:.10g}% by {text(rollout['sticky_unit'])}{split}")


# --- calls and accounts ------------------------------------------------------------------------------------------


def _calls(calls: Sequence[RecentCall], *, several: bool) -> Html:
    columns = (
        Column("Time", lambda call: moment(call.at, "%H:%M:%S")),
        Column("Capability", lambda call: code(call.capability)),
        Column("Status", lambda call: badge(str(call.status), "good" if call.status < 400 else "bad")),
        Column("USD", _cost, kind="number"),
        Column("Milliseconds", lambda call: Html(f"{float(call.milliseconds):,.1f}"), kind="number"),
        Column("Request id", lambda call: code(call.request_id)),
        *((Column("Account", lambda call: code(call.account) if call.account else NOTHING),) if several else ()),
    )
    how = empty("No call since the gateway started. A free one:", "print(await client.account.balance())")
    body = table(columns, [calls]) if calls else how
    return section("calls", "Last calls", f"the newest {len(calls)}" if calls else "", body)


def _cost(call: RecentCall) -> Html:
    cost = Decimal(call.cost)
    return dollars(cost, digits=5) if cost else NOTHING


def _accounts(overview: Overview) -> Html:
    here = overview.account["id"]
    columns = (
        Column("Account", lambda item: link(f"/?account={item['id']}", code(item["id"]), current=item["id"] == here)),
        Column("Wallet, USD", lambda item: _money(item["nano"]), kind="number"),
        Column("Created", created),
    )
    return _listed("accounts", "Accounts", overview.accounts, columns, NOTHING)
