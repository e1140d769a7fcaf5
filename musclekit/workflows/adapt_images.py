"""The images that an adaptation learns from: single legs, cut from the scans of a manifest, and what goes with them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import body_mask, grown_labels, side_by_position
from musclekit.errors import FormatError, InputError, MusclekitError
from musclekit.image import Case, Image, LabelMap
from musclekit.io import ManifestRow, replacing
from musclekit.labels import LabelSet, label_mapping
from musclekit.segmenters.levelset import LevelSetSegmenter

if TYPE_CHECKING:
    from musclekit.neural.adaptation.plan import AdaptPlan, Part
    from musclekit.neural.adaptation.slices import SourceSlices, TargetSlices
    from musclekit.neural.views import View
    from musclekit.neural.windows import Scale

__all__ = ["LegImages", "PreparedImages", "leg_images", "planes_named", "read_images", "write_images"]

#: Free columns of a manifest: by how much labels end inside their muscle, and which slices of a scan are meant.
MARGIN, SLICES = "margin_mm", "slices"
#: A leg that shows less in a slice is left out there (Makrogiannis' mid-thigh pipeline).
LEAST_MM2 = 500.0


@dataclass(frozen=True, eq=False)
class LegImages:
    """Images of one leg of one scan.

    Parameters
    ----------
    case_id, subject, side : str
        Whose; ``"unknown"`` where the side is not known.
    planes : tuple of int
        Which slice of the scan each shows, counted from the feet.
    images : ndarray of float16, shape (n, rows, columns)
        -1 to 1, a left leg mirrored.
    classes : ndarray of uint8, shape (n, rows, columns)
        Labels; 0 where there is none. All 0 of a scan without labels.
    body, room : ndarray of bool, shape (n, rows, columns)
        The leg, and its muscle compartment without bone.
    scale : Scale
        What -1 and 1 stand for.
    grown : float
        Share by which labels with a margin were grown.
    notes : tuple of str
        What a reader has to know.
    """

    case_id: str
    subject: str
    side: str
    planes: tuple[int, ...]
    images: NDArray[np.float16]
    classes: NDArray[np.uint8]
    body: NDArray[np.bool_]
    room: NDArray[np.bool_]
    scale: Scale
    grown: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """What each image is called."""
        return tuple(f"{self.case_id}_{self.side}_{plane:03d}" for plane in self.planes)


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """All the images of one part.

    Parameters
    ----------
    table : list of mapping of str to str
        Of each image ``image``, ``case_id``, ``subject``, ``side``, ``slice``, ``labelled_px``, ``room_px``, ``grown``,
        and the grey values ``low`` and ``high`` that -1 and 1 stand for.
    images, classes, body, room : ndarray
        As in `LegImages`, one leg after the other.
    """

    table: list[dict[str, str]]
    images: NDArray[np.float16]
    classes: NDArray[np.uint8]
    body: NDArray[np.bool_]
    room: NDArray[np.bool_]

    @property
    def ids(self) -> tuple[str, ...]:
        """What each image is called."""
        return tuple(row["image"] for row in self.table)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The person in each."""
        return tuple(row["subject"] for row in self.table)

    @property
    def scale(self) -> Scale:
        """Medians of what -1 and 1 stand for."""
        from musclekit.neural.windows import Scale

        low, high = (float(np.median([float(row[end]) for row in self.table])) for end in ("low", "high"))
        return Scale(low, high)

    def as_source(self) -> SourceSlices:
        """Return them as labelled images."""
        from musclekit.neural.adaptation.slices import SourceSlices

        return SourceSlices(self.images, self.classes, self.subjects)

    def as_target(self) -> TargetSlices:
        """Return them as images without labels."""
        from musclekit.neural.adaptation.slices import TargetSlices

        return TargetSlices(self.images, self.ids, self.subjects)


def planes_named(rows: Sequence[ManifestRow], planes: int) -> NDArray[np.bool_]:
    """Return which slices of a scan a manifest means: its column ``slices``, as ``0-11 20 31-40``, or all.

    Raises
    ------
    InputError
        If they are no slices, or the scan has not so many.
    """
    named = rows[0].extra.get(SLICES)
    if named is None:
        return np.ones(planes, dtype=bool)
    found = np.zeros(planes, dtype=bool)
    for part in named.replace(",", " ").replace(";", " ").split():
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not last)):
            raise InputError(
                f"case '{rows[0].case_id}': column {SLICES}: '{part}' names no slices; write them as 0-11 20 31-40, "
                "counted from the feet"
            )
        low, high = int(first), int(last or first)
        if not low <= high < planes:
            raise InputError(
                f"case '{rows[0].case_id}': column {SLICES}: '{part}' lies outside the scan, whose slices are 0 to "
                f"{planes - 1}"
            )
        found[low : high + 1] = True
    return found


def leg_images(
    case: Case, rows: Sequence[ManifestRow], plan: AdaptPlan, part: Part, *, labelled: bool, with_room: bool
) -> Iterator[LegImages]:
    """Cut the images of one case.

    Parameters
    ----------
    case : Case
        With labels, if they are asked for.
    rows : sequence of ManifestRow
        Of the case: their columns ``margin_mm`` and ``slices``.
    plan : AdaptPlan
        How large images are, and which labels they have.
    part : Part
        Which image of the case is meant, and in which window it is seen.
    labelled : bool
        Whether only slices that show a label are wanted.
    with_room : bool
        Whether the compartment is looked for (of a scan whose labels keep a margin it is in any case).

    Yields
    ------
    LegImages
        Of each leg; one that does not fit, or shows nothing that is asked for, has no images and a note.

    Raises
    ------
    InputError
        If the case has no image of the contrast or no labels, labels cannot be mapped, or its columns say nothing
        that can be used; the message names the case.
    """
    try:
        yield from _leg_images(case, rows, plan, part, labelled=labelled, with_room=with_room)
    except MusclekitError as problem:
        told = str(problem) if f"case '{case.id}'" in str(problem) else f"case '{case.id}': {problem}"
        raise type(problem)(told) from problem


def _leg_images(
    case: Case, rows: Sequence[ManifestRow], plan: AdaptPlan, part: Part, *, labelled: bool, with_room: bool
) -> Iterator[LegImages]:
    from musclekit.neural.views import unit_image, views_of

    image = case.image_of(part.contrast)
    if labelled and case.reference is None:
        raise InputError(f"case '{case.id}' has no labels")
    margin = _margin_mm(rows)
    wanted = planes_named(rows, image.grid.shape[0])
    body = body_mask(image)
    scale = part.scaling.scale_of(image, body)
    room = _room(image) if with_room or margin else np.zeros(image.grid.shape, dtype=bool)
    views = views_of(image, plan.view, body=body, side=case.side)
    placed = side_by_position(image.grid, views[0].mask) if views[0].side is None else None
    guess: tuple[str, ...] = ()
    if placed is not None:
        views = views_of(image, plan.view, body=body, side=placed)
        guess = (f"taken for a {placed} leg by where it lay in the scanner; the manifest's column side goes before",)
    for view in views:
        down, across = view.frame.target.shape[1:]
        if (down, across) != plan.view.size:
            yield _nothing(
                case,
                view,
                scale,
                f"the {view.side or 'single'} thigh is left out, being larger than the window: it needs {down} x "
                f"{across} pixels of {plan.view.spacing_mm:g} mm, the images have {plan.view.size[0]} x "
                f"{plan.view.size[1]} (size, in the plan's view)",
            )
            continue
        inside, free = view.frame.apply_mask(view.mask), view.frame.apply_mask(room & view.mask)
        classes, grown = np.zeros(inside.shape, dtype=np.uint8), 0.0
        if case.reference is not None and labelled:
            classes, grown = _classes(case.reference, view, plan, free if margin else None)
        at = _planes_of(view)
        shown = inside.sum(axis=(1, 2)) * plan.view.spacing_mm**2 >= LEAST_MM2
        shown &= wanted[at]
        if labelled:
            shown &= classes.any(axis=(1, 2))
        kept = np.flatnonzero(shown)
        if not len(kept):
            yield _nothing(case, view, scale, f"no slice of the {view.side or 'single'} thigh shows what is asked for")
            continue
        unit = unit_image(image, view, scale)
        yield LegImages(
            case.id,
            case.subject,
            view.side or "unknown",
            tuple(int(at[z]) for z in kept),
            unit[kept].astype(np.float16),
            classes[kept],
            inside[kept],
            free[kept],
            scale,
            grown,
            (*guess, *view.warnings),
        )


def _nothing(case: Case, view: View, scale: Scale, why: str) -> LegImages:
    """Return the images of a leg of which there is none, and why."""
    none = np.zeros((0, 1, 1))
    shape = (none.astype(np.float16), none.astype(np.uint8), none.astype(bool), none.astype(bool))
    return LegImages(case.id, case.subject, view.side or "unknown", (), *shape, scale, notes=(*view.warnings, why))


def _planes_of(view: View) -> NDArray[np.intp]:
    """Return the slice of the scan that each plane of a view shows."""
    pull = view.frame.pull
    at: NDArray[np.intp] = np.rint(pull[0, 0] * np.arange(view.frame.target.shape[0]) + pull[0, 3]).astype(np.intp)
    return at


def _margin_mm(rows: Sequence[ManifestRow]) -> float:
    given = rows[0].extra.get(MARGIN)
    if given is None:
        return 0.0
    try:
        margin = float(given)
    except ValueError:
        margin = -1.0
    if not 0 <= margin < 20:
        raise InputError(
            f"case '{rows[0].case_id}': column {MARGIN}: '{given}' is no distance; write by how many millimetres "
            "labels end inside their muscle"
        )
    return margin


def _room(image: Image) -> NDArray[np.bool_]:
    """Return the muscle compartment without bone, by level sets."""
    return LevelSetSegmenter().segment(image).mask("compartment")


def _classes(
    reference: LabelMap, view: View, plan: AdaptPlan, room: NDArray[np.bool_] | None
) -> tuple[NDArray[np.uint8], float]:
    """Return classes on the grid of a view, and the share by which labels were grown into the room they have."""
    from musclekit.neural.labelled import class_table
    from musclekit.neural.views import labels_in

    seen = labels_in(reference, view)
    mapping = label_mapping(reference.label_set, plan.labels)
    grown = 0.0
    if room is not None:
        before = int(np.count_nonzero(seen.voxels))
        seen = seen.with_voxels(grown_labels(seen.voxels, _steps(reference.label_set, plan), room))
        grown = np.count_nonzero(seen.voxels) / max(before, 1) - 1
    return class_table(plan.labels)[seen.mapped(mapping).voxels], float(grown)


def _steps(source: LabelSet, plan: AdaptPlan) -> dict[int, int]:
    """Return how often each label of a set is dilated: as often as the group it belongs to."""
    mapping = label_mapping(source, plan.labels)
    names = {label.id: label.name for label in plan.labels}
    return {before: plan.margin_steps.get(names[after], 0) for before, after in mapping.ids.items()}


def write_images(legs: Sequence[LegImages], out: Path, name: str) -> None:
    """Write the images of one part: ``<name>.csv`` and arrays beside it, which open in NumPy.

    Raises
    ------
    InputError
        If there is none.
    OutputError
        If they cannot be written.
    """
    legs = [leg for leg in legs if leg.planes]
    if not legs:
        raise InputError(f"there is no image of the {name}: no leg of its scans fits and shows what is asked for")
    for what in ("images", "classes", "body", "room"):
        array = np.concatenate([getattr(leg, what) for leg in legs])
        with replacing(out / f"{name}_{what}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
    with replacing(out / f"{name}.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(
            ["image", "case_id", "subject", "side", "slice", "labelled_px", "room_px", "grown", "low", "high"]
        )
        for leg in legs:
            for n, (image, plane) in enumerate(zip(leg.ids, leg.planes, strict=True)):
                counts = [int(np.count_nonzero(part[n])) for part in (leg.classes, leg.room)]
                ends = [f"{value:.6g}" for value in (leg.scale.low, leg.scale.high)]
                table.writerow([image, leg.case_id, leg.subject, leg.side, plane, *counts, round(leg.grown, 4), *ends])


def read_images(out: Path, name: str) -> PreparedImages:
    """Read what `write_images` wrote; arrays stay on the disk until they are looked at.

    Raises
    ------
    FormatError
        If a file is missing or damaged, or they do not belong together.
    """
    try:
        with (out / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            table: list[dict[str, str]] = list(csv.DictReader(stream))
        arrays: Mapping[str, Any] = {
            what: np.load(out / f"{name}_{what}.npy", mmap_mode="r", allow_pickle=False)
            for what in ("images", "classes", "body", "room")
        }
    except (OSError, ValueError, csv.Error) as problem:
        raise FormatError(f"{out}: the prepared images of the {name} are missing or damaged ({problem})") from problem
    if len({len(table), *map(len, arrays.values())}) > 1:
        raise FormatError(f"{out}: the prepared images of the {name} do not belong together; prepare them again")
    return PreparedImages(table, **arrays)
