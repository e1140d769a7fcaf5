"""The picture to check a segmentation by: its slices side by side, with the outline of every structure.

Seen as radiologists see it: the front of the body on top, the patient's right on the left of the picture, whatever the
order and direction of the array's axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.errors import GeometryError, ModalityError, ParameterError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import Label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Panel", "choose_slices", "draw_slices", "grey_window", "montage"]

#: Grey window of CT: fat dark grey, muscle mid grey, bone white.
CT_WINDOW_HU = (-160.0, 240.0)
#: Robust percentiles, inside the body, that MR is shown between.
MR_PERCENTILES = (1.0, 99.5)
#: Above this a CT voxel counts as body for framing. The couch is left out by what the labels touch, not by its density.
CT_BODY_HU = -200.0

MARGIN_MM = 8.0
GAP_PX = 10
MAX_PANEL_PX = 760
MIN_WIDTH_PX = 560
#: No panel is longer than so many times the width asked for.
MAX_ELONGATION = 2.0
FILL_OPACITY = 0.20
#: Predictive variance that is drawn brightest; summed over classes it is at most 0.5 where two classes compete.
MOST_VARIANCE = 0.25

BACKGROUND = (15, 17, 20)
INK = "#f1f3f5"
FAINT_INK = "#b6bcc4"
#: matplotlib brings it along, so that the picture is the same on every machine.
FONT = "DejaVu Sans"


@dataclass(frozen=True, eq=False)
class Panel:
    """One slice, drawn.

    Parameters
    ----------
    slice : int
        Its array index.
    level_mm : float
        World height (towards the head) of the centre of the slice, in mm.
    rgb : ndarray of uint8, shape (rows, columns, 3)
        Row 0 is the front of the body, column 0 the patient's right.
    px_per_mm : float
        Scale, the same along rows and columns.
    window : tuple of float
        Grey values shown black and white.
    labels : tuple of Label
        The structures outlined, in the order of the label set.
    """

    slice: int
    level_mm: float
    rgb: NDArray[np.uint8]
    px_per_mm: float
    window: tuple[float, float]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class _View:
    """How to look at an array from below: which axes are slices, rows and columns, and which of these are mirrored."""

    axes: tuple[int, int, int]
    flip_rows: bool
    flip_columns: bool

    @classmethod
    def of(cls, grid: Grid) -> _View:
        # Rows of `direction` are world R, A, S; each array axis is given the world axis that it follows best.
        direction = grid.direction
        axes = max(
            itertools.permutations(range(3)),
            key=lambda p: abs(direction[2, p[0]]) + abs(direction[1, p[1]]) + abs(direction[0, p[2]]),
        )
        return cls(
            (axes[0], axes[1], axes[2]),
            flip_rows=bool(direction[1, axes[1]] > 0),
            flip_columns=bool(direction[0, axes[2]] > 0),
        )

    def plane(self, voxels: NDArray[Any], index: int) -> NDArray[Any]:
        """One slice with the front in row 0 and the patient's right in column 0."""
        plane = voxels.transpose(self.axes)[index]
        return np.ascontiguousarray(plane[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])


def grey_window(values: NDArray[np.floating[Any]], contrast: Contrast) -> tuple[float, float]:
    """Return the grey values shown as black and as white.

    Parameters
    ----------
    values : ndarray of float
        Grey values inside the body; any shape. Not looked at for CT.
    contrast : Contrast
        CT has a fixed window, -160 to 240 HU; MR is shown between its 1st and 99.5th percentile.

    Returns
    -------
    tuple of float
        (black, white), with black < white.
    """
    if contrast is Contrast.CT:
        return CT_WINDOW_HU
    low, high = (float(q) for q in np.percentile(values, MR_PERCENTILES))
    return (low, high) if high > low else (low - 1.0, low + 1.0)


def choose_slices(labels: LabelMap, most: int = 12) -> list[int]:
    """Choose the slices to show.

    Parameters
    ----------
    labels : LabelMap
        What was found.
    most : int
        At most so many, 1 or more.

    Returns
    -------
    list of int
        Array indices along the axis that runs from foot to head, the highest slice first: spread evenly over the
        slices that hold a label, the first and the last among them; over all slices where none does.
    """
    view = _View.of(labels.grid)
    labelled = _labelled(labels)
    choice = labelled if labelled.size else np.arange(labels.grid.shape[view.axes[0]])
    if choice.size > most:
        ends = (0, choice.size - 1) if most > 1 else (choice.size // 2,) * 2
        choice = choice[np.round(np.linspace(*ends, most)).astype(int)]
    return sorted((int(z) for z in choice), key=lambda z: -_level_mm(labels.grid, view, z))


def _labelled(labels: LabelMap) -> NDArray[np.intp]:
    return np.flatnonzero(labels.voxels.transpose(_View.of(labels.grid).axes).any(axis=(1, 2)))


def draw_slices(
    image: Image,
    labels: LabelMap,
    slices: Sequence[int],
    *,
    panel_px: int = 400,
    fake: Image | None = None,
    variance: NDArray[np.floating[Any]] | None = None,
) -> list[Panel]:
    """Draw slices with the outline and a faint fill of every structure, all cropped to one frame around the body.

    Parameters
    ----------
    image : Image
        Grey values.
    labels : LabelMap
        On the grid of the image.
    slices : sequence of int
        Array indices along the axis that runs from foot to head.
    panel_px : int
        Width of each panel in pixels; a body more than twice as long as wide is drawn narrower.
    fake : Image, optional
        A translation of the image, of its contrast, to be laid over it: green where it became more like muscle, red
        where less, yellow where it stayed (Gadermayr et al., hard-to-easy translation, Figure 3).
    variance : ndarray of float, shape of the image, optional
        Predictive variance to be laid over it: from nothing over violet and orange to yellow at 0.25.

    Returns
    -------
    list of Panel
        In the order of `slices`, of one size.

    Raises
    ------
    GeometryError
        If image and labels, or image and translation, lie on different grids, or the variance has another shape.
    ModalityError
        If the translation is of another contrast.
    """
    if not image.grid.same_as(labels.grid):
        raise GeometryError(f"labels and image lie on different grids: {image.grid.difference(labels.grid)}")
    if fake is not None:
        _check_translation(image, fake)
    if variance is not None and variance.shape != image.grid.shape:
        raise GeometryError(f"the variance has shape {variance.shape}, the image {image.grid.shape} (z, y, x)")
    view = _View.of(image.grid)
    grey = [view.plane(image.voxels, z) for z in slices]
    ids = [view.plane(labels.voxels, z) for z in slices]
    spacing = image.grid.spacing
    dy, dx = spacing[view.axes[1]], spacing[view.axes[2]]

    bodies = [_body(g, i > 0, image.contrast) for g, i in zip(grey, ids, strict=True)]
    top, bottom, left, right = _frame(bodies, dy, dx)
    inside = np.concatenate([g[b] for g, b in zip(grey, bodies, strict=True)])
    black, white = grey_window(inside if inside.size else np.concatenate([g.ravel() for g in grey]), image.contrast)

    width_mm, height_mm = (right - left) * dx, (bottom - top) * dy
    scale = panel_px / max(width_mm, height_mm / MAX_ELONGATION)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    panels = []

    def drawn_grey(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
        crop = np.clip((plane[top:bottom, left:right] - black) * (255.0 / (white - black)), 0, 255)
        shrinks = size[0] < crop.shape[1]
        picture = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        return cast(NDArray[np.uint8], np.clip(picture, 0, 255).astype(np.uint8))

    for z, g, i in zip(slices, grey, ids, strict=True):
        before = drawn_grey(g)
        rgb = np.repeat(before[:, :, None], 3, axis=2)
        if fake is not None:
            after = drawn_grey(view.plane(fake.voxels, z))
            # Red and green make yellow. Muscle is darker than fat, or brighter: green is what moved towards it.
            rgb[..., 0], rgb[..., 1] = (before, after) if image.contrast.fat_is_bright is False else (after, before)
            rgb[..., 2] = 0
        if variance is not None:
            rgb = _heated(rgb, view.plane(variance, z)[top:bottom, left:right])
        here = i[top:bottom, left:right]
        present = set(np.flatnonzero(np.bincount(here.ravel())).tolist())
        drawn = tuple(label for label in labels.label_set if label.id in present)
        _draw_labels(rgb, here, drawn, fill=FILL_OPACITY if variance is None else 0.0)
        panels.append(Panel(z, _level_mm(image.grid, view, z), rgb, scale, (black, white), drawn))
    return panels


def _check_translation(image: Image, fake: Image) -> None:
    if not image.grid.same_as(fake.grid):
        raise GeometryError(f"image and translation lie on different grids: {image.grid.difference(fake.grid)}")
    if image.contrast is not fake.contrast:
        raise ModalityError(f"a translation from {image.contrast} to {fake.contrast} cannot be laid over its image")


def montage(
    image: Image,
    labels: LabelMap,
    *,
    columns: int | None = None,
    max_slices: int = 12,
    width_px: int = 1600,
    fake: Image | None = None,
    variance: NDArray[np.floating[Any]] | None = None,
) -> bytes:
    """Lay labelled slices side by side, from the hip down, with names, levels, sides and a scale.

    Parameters
    ----------
    image : Image
        Grey values. CT is shown from -160 to 240 HU, MR between robust percentiles inside the body.
    labels : LabelMap
        On the grid of the image. Contours have the colours of the label set.
    columns : int, optional
        Pictures in a row; chosen by the shape of the body where not given.
    max_slices : int
        At most so many slices, spread evenly over those that hold a label, the first and last among them. Where
        no slice holds one, over all of them, and the picture says so.
    width_px : int
        At most so wide; a few small pictures make a narrower one.
    fake : Image, optional
        A translation to be laid over the image, see `draw_slices`.
    variance : ndarray of float, shape of the image, optional
        Predictive variance to be laid over the image, see `draw_slices`.

    Returns
    -------
    bytes
        A PNG, the same bytes for the same input.

    Raises
    ------
    GeometryError
        If image, labels and translation do not share a grid.
    ModalityError
        If the translation is of another contrast.
    ParameterError
        If a number is out of range.
    """
    for name, value, least in (("columns", columns, 1), ("max_slices", max_slices, 1), ("width_px", width_px, 200)):
        if value is not None and value < least:
            raise ParameterError(f"{name} must be {least} or more, not {value}")
    slices = choose_slices(labels, max_slices)
    if columns is None:
        # A drawing of a few small slices costs next to nothing and tells the shape of the body.
        height, width, _ = draw_slices(image, labels, slices[:: max(1, len(slices) // 3)], panel_px=64)[0].rgb.shape
        columns = _best_columns(len(slices), aspect=width / height)
    columns = min(columns, len(slices))
    panel_px = max(48, min(MAX_PANEL_PX, (width_px - (columns + 1) * GAP_PX) // columns))
    panels = draw_slices(image, labels, slices, panel_px=panel_px, fake=fake, variance=variance)
    facts = []
    labelled = _labelled(labels)
    if fake is not None:
        facts.append("green: more like muscle than before, red: less, yellow: unchanged")
    elif variance is not None:
        facts.append(f"predictive variance: none (grey) over violet and orange to {MOST_VARIANCE:g} and more (yellow)")
    elif not labelled.size:
        facts.append("no voxel is labelled")
    elif len(slices) < labelled.size:
        facts.append(f"{len(slices)} of {labelled.size} labelled slices")
    black, white = (f"{level:.4g}".replace("-", "\N{MINUS SIGN}") for level in panels[0].window)
    unit = " HU" if image.contrast is Contrast.CT else ""
    facts.append(f"{image.contrast.upper()}, black to white: {black} to {white}{unit}")
    return _compose(panels, columns, width_px, facts)


def _level_mm(grid: Grid, view: _View, index: int) -> float:
    centre = (np.asarray(grid.shape) - 1) / 2
    centre[view.axes[0]] = index
    return float(grid.world(centre)[2])


def _best_columns(count: int, aspect: float) -> int:
    """Columns whose picture is nearest to 3:2 with few empty places."""

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * aspect / rows / 1.5)) + 2 * (columns * rows - count) / count

    return min(range(1, min(count, 6) + 1), key=cost)


def _body(grey: NDArray[np.float32], labelled: NDArray[np.bool_], contrast: Contrast) -> NDArray[np.bool_]:
    """Roughly the body in one slice: good enough to frame a picture and set a grey window, no more."""
    smooth = cv2.GaussianBlur(grey, (5, 5), 0)
    if contrast is Contrast.CT:
        mask = smooth > CT_BODY_HU
    else:
        low, high = float(smooth.min()), float(smooth.max())
        span = ((smooth - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)
        otsu, _ = cv2.threshold(span, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        mask = span > 0.5 * otsu
    # Opened, so that the shell of a couch and the noise around a coil fall apart into small pieces.
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, ball)
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    area[0] = 0
    keep = area >= 0.25 * max(1.0, area.max())
    keep |= np.bincount(pieces[labelled], minlength=keep.size) > 0
    keep[0] = False
    body: NDArray[np.bool_] = keep[pieces] | labelled
    return body


def _frame(bodies: Sequence[NDArray[np.bool_]], dy: float, dx: float) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) around every body, with a margin; the whole slice where there is none."""
    union = np.logical_or.reduce(bodies)
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    if rows.size == 0:
        return 0, union.shape[0], 0, union.shape[1]
    my, mx = math.ceil(MARGIN_MM / dy), math.ceil(MARGIN_MM / dx)
    return (
        max(0, int(rows[0]) - my),
        min(union.shape[0], int(rows[-1]) + 1 + my),
        max(0, int(columns[0]) - mx),
        min(union.shape[1], int(columns[-1]) + 1 + mx),
    )


def _heated(rgb: NDArray[np.uint8], variance: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Lay a variance over a picture: the larger it is, the brighter and the less transparent."""
    size = (rgb.shape[1], rgb.shape[0])
    share = np.clip(cv2.resize(variance.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) / MOST_VARIANCE, 0, 1)
    colors = cv2.cvtColor(
        cv2.applyColorMap(np.round(share * 255).astype(np.uint8), cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB
    )
    opacity = np.sqrt(share)[..., None]
    mixed: NDArray[np.uint8] = np.round(rgb * (1 - opacity) + colors * opacity).astype(np.uint8)
    return mixed


def _draw_labels(
    rgb: NDArray[np.uint8], ids: NDArray[np.unsignedinteger[Any]], labels: Sequence[Label], *, fill: float
) -> None:
    """Fill faintly, then outline, in place."""
    size = (rgb.shape[1], rgb.shape[0])
    thickness = max(1, round(size[0] / 450))
    outlines = []
    for label in labels:
        share = cv2.resize((ids == label.id).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        mask = share >= 0.5
        if not mask.any():  # a structure thinner than a pixel of the picture is drawn all the same
            mask = share >= share.max() if share.max() > 0 else _nearest(ids == label.id, size)
        color = _rgb(label.color)
        rgb[mask] = (rgb[mask] * (1 - fill) + np.asarray(color) * fill).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outlines.append((contours, color))
    for contours, color in outlines:
        cv2.drawContours(rgb, contours, -1, color, thickness, lineType=cv2.LINE_AA)


def _nearest(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixel of a (width, height) picture nearest to each voxel of the mask."""
    found = np.zeros((size[1], size[0]), dtype=np.bool_)
    rows, columns = np.nonzero(mask)
    found[rows * size[1] // mask.shape[0], columns * size[0] // mask.shape[1]] = True
    return found


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _scale_bar_mm(width_mm: float) -> int:
    """Return the longest round length of at most a quarter of the picture."""
    return max((n for n in (1, 2, 5, 10, 20, 50, 100) if n <= width_mm / 4), default=1)


def _compose(panels: Sequence[Panel], columns: int, width_px: int, facts: Sequence[str]) -> bytes:
    """Put the panels in rows, under each row of text that belongs to them, and the scale and the names below all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    panel_height, panel_width = panels[0].rgb.shape[:2]
    grid_width = columns * (panel_width + GAP_PX) - GAP_PX
    width = max(grid_width + 2 * GAP_PX, min(MIN_WIDTH_PX, width_px))
    left = (width - grid_width) // 2
    letters = float(np.clip(width / 84, 12, 19))
    line = round(1.75 * letters)
    row_height = line + panel_height + GAP_PX
    head = math.ceil(len(panels) / columns) * row_height

    figure = Figure(dpi=72, facecolor="none")  # at 72 dots an inch a point is a pixel
    canvas: Any = FigureCanvasAgg(figure)  # its methods are untyped

    def text_width(text: str) -> float:
        prop = FontProperties(family=FONT, size=letters)
        return float(canvas.get_renderer().get_text_width_height_descent(text, prop, ismath=False)[0])

    legend = _flow(_legend(panels), GAP_PX, width - GAP_PX, letters, text_width)
    rows = 1 + (legend[-1].row + 1 if legend else 0)
    sheet = np.empty((head + rows * line + GAP_PX, width, 3), dtype=np.uint8)
    sheet[:] = BACKGROUND
    figure.set_size_inches(width / 72, sheet.shape[0] / 72)
    text = partial(_write, figure)

    for n, panel in enumerate(panels):
        x, y = left + (n % columns) * (panel_width + GAP_PX), n // columns * row_height + line
        sheet[y : y + panel_height, x : x + panel_width] = panel.rgb
        text(x, y - line / 2, f"slice {panel.slice}", letters, INK)
        text(
            x + panel_width,
            y - line / 2,
            f"z {panel.level_mm:.0f} mm".replace("-", "\N{MINUS SIGN}"),
            letters,
            FAINT_INK,
            align="right",
        )
        middle = y + panel_height / 2
        text(x + 0.4 * letters, middle, "R", letters, INK, outlined=True)
        text(x + panel_width - 0.4 * letters, middle, "L", letters, INK, align="right", outlined=True)

    bar_mm = _scale_bar_mm(panel_width / panels[0].px_per_mm)
    bar_px = max(1, round(bar_mm * panels[0].px_per_mm))
    middle = head + line // 2
    sheet[middle - 2 : middle + 2, GAP_PX : GAP_PX + bar_px] = _rgb(INK)
    text(GAP_PX + bar_px + 0.6 * letters, middle, "     ".join((f"{bar_mm:g} mm", *facts)), letters, INK)
    half = round(0.36 * letters)
    for entry in legend:
        y = head + (entry.row + 1) * line + line // 2
        sheet[y - half : y + half, entry.x : entry.x + 2 * half] = _rgb(entry.color)
        text(entry.x + 2 * half + 0.4 * letters, y, entry.name, letters, INK)

    # The text lies on a clear ground and is laid over the picture here, where it stands: matplotlib would resample it.
    canvas.draw()
    rgba = np.asarray(canvas.buffer_rgba())
    written = rgba[..., 3] > 0
    share = rgba[written][:, 3:] / 255.0
    sheet[written] = np.round(sheet[written] * (1 - share) + rgba[written][:, :3] * share)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return bytes(encoded.tobytes())


@dataclass(frozen=True)
class _Entry:
    """A name in the legend, and where it stands."""

    name: str
    color: str
    x: int
    row: int


def _legend(panels: Sequence[Panel]) -> dict[str, str]:
    """Name to colour of what is drawn, each name once, in the order of the label set."""
    labels = {label.id: label for panel in panels for label in panel.labels}
    return {labels[i].name: labels[i].color for i in sorted(labels)}


def _flow(
    colors: Mapping[str, str], left: int, right: int, letters: float, text_width: Callable[[str], float]
) -> list[_Entry]:
    """Set the names in columns of one width, as many as fit between left and right."""
    if not colors:
        return []
    step = math.ceil(max(text_width(name) for name in colors) + 2.6 * letters)
    across = max(1, (right - left) // step)
    return [
        _Entry(name, color, left + n % across * step, n // across) for n, (name, color) in enumerate(colors.items())
    ]


def _write(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    letters: float,
    color: str,
    *,
    align: str = "left",
    outlined: bool = False,
) -> None:
    """Write at a pixel counted from the top left, centred on it vertically."""
    from matplotlib.patheffects import Normal, Stroke

    width, height = figure.get_size_inches() * figure.dpi
    effects = [Stroke(linewidth=3, foreground="black"), Normal()] if outlined else None
    figure.text(
        x / width,
        1 - y / height,
        text,
        color=color,
        fontsize=letters,
        fontfamily=FONT,
        ha=align,
        va="center",
        parse_math=False,
        path_effects=effects,
    )
