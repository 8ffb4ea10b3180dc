"""The templates of tfopt, filled in."""

from collections.abc import Callable, Mapping
from typing import Any

import jinja2

_LOADER = jinja2.PackageLoader("tfopt")


def rendered(name: str, filters: Mapping[str, Callable], values: Mapping[str, Any]) -> str:
    """Return the template `name` with `values` in it, which are escaped where it is of HTML."""
    environment = jinja2.Environment(
        loader=_LOADER,
        autoescape=name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)


def source(name: str) -> str:
    """Return the text of the file `name` beside the templates, as it is."""
    return _LOADER.get_source(jinja2.Environment(), name)[0]
