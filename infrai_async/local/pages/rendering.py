"""The templates of the pages, and the files that go into them.

All of them are read as resources of the package, so the gateway also works from a zip file.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from infrai_async.local.pages import formatting


def render(template: str, **values: object) -> str:
    """Return a page. Every value is escaped, unless the template says that it is safe."""
    return _environment().get_template(template).render(values)


def resource(name: str) -> str:
    """Return the text of a file in the package of the pages."""
    return files("infrai_async.local.pages").joinpath(name).read_text(encoding="utf-8")


def policy_hash(source: str) -> str:
    """Return the entry of a Content-Security-Policy that lets this style or script through, and no other."""
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    """Return the environment of the templates. It is made, and they are compiled, when a page is first shown."""
    environment = Environment(
        loader=FunctionLoader(lambda name: resource(f"templates/{name}")),
        autoescape=True,
        finalize=formatting.readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (
        formatting.local_time,
        formatting.usd,
        formatting.money,
        formatting.number,
        formatting.many,
        formatting.size,
        formatting.share,
        formatting.as_json,
    )
    environment.filters.update({filter.__name__: filter for filter in filters})
    return environment
