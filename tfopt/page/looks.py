"""How plots look: figures as SVG that takes its colours and its font from the page."""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

WIDTH = 400  # of every plot, in units that are pixels on a phone and in the page's grid
HEIGHT = 310  # of those that have no rows
_FONT = 11
# Colours that nothing else has stand for the page's own, which differ in light and in dark.
INK, SOFT, LINE, ACCENT, PALE, PAPER = (f"#0{n}0{n}0{n}" for n in range(1, 7))
_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", ACCENT: "accent", PALE: "pale", PAPER: "card"}
_TIP = "tip:"
_WIDE = 3.5
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tfopt",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": _FONT,
    "axes.titlesize": _FONT,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.labelsize": _FONT,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": _FONT,
    "legend.labelcolor": SOFT,
    "legend.borderpad": 0,
}


@contextmanager
def figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> Iterator[tuple]:
    """Yield a figure of `height` and its axes, as `Figure.subplots` does, in the page's style."""
    # Deferred, as they take half a second, and no pyplot, whose figures are for a screen.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        made = Figure(figsize=(WIDTH / 72, height / 72))
        yield made, made.subplots(rows, columns, **options)


def margins(
    made: Any, *, left: float = 44, right: float = 10, top: float = 14, bottom: float = 40
) -> None:
    """Leave so much room around the axes of the figure `made`."""
    height = made.get_figheight() * 72
    made.subplots_adjust(
        left=left / WIDTH, right=1 - right / WIDTH, top=1 - top / height, bottom=bottom / height
    )


def room_for(names: list[str]) -> float:
    """Return the width that the longest of `names` takes."""
    return 14 + 0.56 * _FONT * max(map(len, names), default=0)


def short(name: str, most: int = 24) -> str:
    """Return `name` without its middle where it is longer than `most`."""
    kept = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - kept]}…{name[-kept:]}"


def tip(artist: Any, text: str) -> None:
    """Show `text` where the pointer rests on `artist`."""
    artist.set_gid(_TIP + text)


def svg(made: Any, label: str) -> str:
    """Return the figure `made` as an <svg> for a page, with `label` for those who can't see it."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The page's font may have what the one that text is measured by lacks.
        warnings.filterwarnings("ignore", "Glyph")
        made.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    view = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg {view.group() if view else ""} role="img" aria-label="{escape(label)}">'
    text = re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)
    text = re.sub(rf'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>", text)
    # Ids are of the whole page: those that are used are of what they stand for, the others go.
    used = set(re.findall(r"#([\w-]+)\)?\"", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m.group() if m[1] in used else "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([\w ]*?)(\d+(?:\.\d+)?px) [^;\"]*", r"font-size: \2", text)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", text)


def figures(value: float, _: Any = None) -> str:
    """Return a number in short: 950, 1.5 k, 32 k, 2 M."""
    if not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def spread(axis: Any, least: float, most: float) -> None:
    """Scale the `axis` for figures above 0, from `least` to `most`: by their logarithm if wide."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axis.set_major_formatter(FuncFormatter(figures))
    limit = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
    if most < _WIDE * least:
        limit(0, most * 1.12)
        axis.set_major_locator(MaxNLocator(5))
        return
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    powers = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 1)
    each = (1, 2, 5) if most / least < 60 else (1, 3) if most / least < 1000 else (1,)
    axis.set_major_locator(FixedLocator([n * 10.0**p for p in powers for n in each]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(figures))
    limit(least / 1.35, most * 1.35)
