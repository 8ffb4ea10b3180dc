"""Tables for the terminal, and for Markdown."""

from collections.abc import Sequence

import tabulate


def table(
    rows: Sequence[Sequence[str]], heads: Sequence[str], left: int = 1, form: str = "simple"
) -> str:
    """Return `rows` under `heads`, the first `left` columns aligned to the left.

    `form` is one of tabulate's, as "pipe" for Markdown.
    """
    align = ["left"] * left + ["right"] * (len(heads) - left)
    # Of no rows tabulate would take the alignment for an error.
    return tabulate.tabulate(
        rows, heads, form, disable_numparse=True, colalign=align if rows else None
    )
