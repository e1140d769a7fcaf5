"""What every figure is drawn with: its colours, its style, the way it becomes an SVG document."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musclekit.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = [
    "FAINT",
    "GRID",
    "INK",
    "METHOD_COLORS",
    "WIDTH_IN",
    "Figure",
    "legend_below",
    "legend_in",
    "need",
    "style",
    "svg_of",
]

#: Colours of lettering and lines. They occur in nothing else, so that a dark page can exchange them.
INK = "#1d2329"
FAINT = "#5b6570"
GRID = "#d5dae0"

#: Width of a figure that fits twice on a desktop page and once, at its size, on a phone held upright.
WIDTH_IN = 5.0
#: Readable on white and on black; told apart by people who see red and green alike.
METHOD_COLORS = ("#2a78b5", "#d1662a", "#2e9e77", "#b0559b", "#8a8d1e", "#7a6fd0", "#c2405a", "#6f7a85")


@dataclass(frozen=True)
class Figure:
    """A drawing and the words that go with it.

    Parameters
    ----------
    title : str
        What is shown.
    svg : str
        The drawing: a whole SVG document, without references to anything outside it.
    alt : str
        What a reader who cannot see it needs to know.
    caption : str
        How to read it.
    """

    title: str
    svg: str
    alt: str
    caption: str = ""


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the reports."""
    import matplotlib as mpl

    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "musclekit",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": FAINT,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "axes.titlesize": 10,
            "axes.titlecolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "text.parse_math": False,
        }
    ):
        yield


def svg_of(canvas: Canvas) -> str:
    """Return the drawing as an SVG document that refers to nothing outside it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    render: Any = FigureCanvasSVG(canvas)
    render.print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    # The XML prologue names a DTD on the network and the metadata vocabularies on others; a drawing needs neither.
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return text


def legend_in(count: int, columns: int) -> float:
    """Height in inches of a legend of so many names."""
    return 0.2 * math.ceil(count / columns) + 0.1


def legend_below(canvas: Canvas, ax: Axes, count: int, columns: int) -> None:
    """Set the names under the axes, over the whole width, and the axes above them."""
    handles, labels = ax.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="lower left", ncols=columns, bbox_to_anchor=(0.01, 0), columnspacing=1.6)
    canvas.tight_layout(rect=(0, legend_in(count, columns) / canvas.get_size_inches()[1], 1, 1))


def need(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a table without the columns that something is made from."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise SchemaError(f"{what} needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
