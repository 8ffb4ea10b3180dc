"""Tables for the terminal."""

from collections.abc import Sequence

import tabulate


def table(rows: Sequence[Sequence[str]], heads: Sequence[str], left: int = 1) -> str:
    """Return `rows` under `heads`, the first `left` columns aligned to the left."""
    align = ["left"] * left + ["right"] * (len(heads) - left)
    # Of no rows tabulate would take the alignment for an error.
    return tabulate.tabulate(
        rows, headers=heads, disable_numparse=True, colalign=align if rows else None
    )
