"""Transfer everything in a copied database to the copy's role, without changing what the source's role owns."""

from __future__ import annotations

import asyncpg

# Policies and default privileges name a role without being owned by it. `REASSIGN OWNED` leaves both with the old role,
# and the `DROP OWNED` that must follow (or the old role could never be dropped) would delete them.
_POLICIES = """
select format('alter policy %I on %s to %s', polname, polrelid::regclass,
              (select string_agg(case when r = 0 then 'public' when r = old.oid then quote_ident($2)
                                      else quote_ident(pg_get_userbyid(r)) end, ', ') from unnest(polroles) r))
from pg_policy, pg_roles old where old.rolname = $1 and old.oid = any(polroles)
"""
_DEFAULTS = """
select format('alter default privileges for role %I %s %s %s on %s %s %s', $2::text,
              case when n.oid is not null then format('in schema %I', n.nspname) else '' end,
              case when gone then 'revoke' else 'grant' end, a.privilege_type,
              case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions'
                                   when 'T' then 'types' when 'n' then 'schemas' else 'large objects' end,
              case when gone then 'from' else 'to' end,
              case a.grantee when 0 then 'public' when old.oid then quote_ident($2)
                             else quote_ident(pg_get_userbyid(a.grantee)) end
              || case when a.is_grantable and not gone then ' with grant option' else '' end)
from pg_default_acl d
join pg_roles old on old.oid = d.defaclrole and old.rolname = $1
left join pg_namespace n on n.oid = d.defaclnamespace
cross join lateral (
    -- acldefault uses 's' for sequences and 'S' for foreign servers.
    select case when n.oid is null then replace(d.defaclobjtype::text, 'S', 's')::"char" end as builtin
) t
cross join lateral (
    select false as gone, * from aclexplode(d.defaclacl)
    union all
    -- An entry without a schema replaces the built-in default, so a privilege that it lacks was revoked.
    select true, b.* from aclexplode(acldefault(builtin, old.oid)) b
    where not exists (select from aclexplode(d.defaclacl) h
                      where h.grantee = b.grantee and h.privilege_type = b.privilege_type)
) a
"""


_GIVEN_BACK = """
select format('alter database %I owner to %I', datname, $1::text)
from pg_database where datdba = (select oid from pg_roles where rolname = $1::name)
"""


async def hand_over(inside: asyncpg.Connection[asyncpg.Record], old: str, new: str) -> None:
    """Transfer everything that the role `old` owns in this database to `new`, in one transaction; idempotent.

    `REASSIGN OWNED` also transfers the databases that the old role owns, which is the source. They are given back in
    the same transaction, so no other session sees the source with the wrong owner.

    Args:
        inside: A connection to the copy, as a superuser or a member of both roles.
        old: The name of the source database and of its role.
        new: The role of the copy.
    """
    async with inside.transaction():
        rewritten = [row[0] for query in (_POLICIES, _DEFAULTS) for row in await inside.fetch(query, old, new)]
        back = [row[0] for row in await inside.fetch(_GIVEN_BACK, old)]
        steps = [f"reassign owned by {quoted(old)} to {quoted(new)}", *back, *rewritten, f"drop owned by {quoted(old)}"]
        await inside.execute("; ".join(steps))


def for_owner_alone(name: str) -> str:
    """Return the SQL that lets only the owner connect to a database created with ``connection limit 0``."""
    return f"revoke all on database {quoted(name)} from public; alter database {quoted(name)} connection limit -1"


def quoted(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
