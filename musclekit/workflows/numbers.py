"""From a label map to its numbers, each leg by itself, and to the tables on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from musclekit.anatomy import Leg, body_mask, femur_axis, femur_mask, label_sides, obliquity_cosine, split_legs
from musclekit.errors import MusclekitError, SegmentationError
from musclekit.image import Assessment, Contrast, Image, LabelMap
from musclekit.io import Scan, replacing
from musclekit.labels import Side
from musclekit.quantify import Measures, measure
from musclekit.workflows.record import write_json

__all__ = [
    "BONE_LABELS",
    "NOT_ASSESSED",
    "assessed_measures",
    "scan_details",
    "sided_measures",
    "write_measures",
    "write_table",
]

#: Label set (unsided) to the labels that make up its bone, from which the femur's axis is taken in MR.
BONE_LABELS: Mapping[str, tuple[str, ...]] = {
    "tissue": ("cortical bone", "marrow"),
    "compartment": ("bone",),
    "thigh-full": ("femur",),
    "thigh-context": ("femur",),
    "qmritools": ("femur",),
    "hip-thigh-22": ("femur",),
}

#: Status of slices in which a segmenter that knows its limits labels nothing.
NOT_ASSESSED = "not a thigh"

#: Areas are corrected up to this angle of the femur. The femur frame doubts axes beyond 35 degrees, but patients whose
#: hips are bent over a cushion lie at 36 to 43, and they need the correction most: the cosine of 40 degrees is 0.77.
LARGEST_ANGLE_DEG = 50.0


def sided_measures(
    labels: LabelMap,
    image: Image,
    *,
    side: Side | None = None,
    fat: Image | None = None,
    water: Image | None = None,
) -> Measures:
    """Measure a label map, left and right apart where the scan lets them be told apart.

    Parameters
    ----------
    labels : LabelMap
        On the grid of the image; its own sides are kept when its set has them.
    image : Image
        Grey values; the legs are found in it.
    side : {"left", "right"}, optional
        Which leg, where the scan shows one.
    fat, water : Image, optional
        Dixon images, for the fat fraction.

    Returns
    -------
    Measures
        Areas are corrected by each leg's femur axis where the labels hold bone; what could not be told is a warning.
    """
    notes: list[str] = []
    legs = _legs(image, side, notes)
    cosines = _cosines(labels, image, legs, notes)
    known = bool(legs) and all(leg.side is not None for leg in legs)
    if not labels.label_set.is_sided and known and len(legs) == 2:
        measures = measure(label_sides(labels, legs), image, fat=fat, water=water, cosine=cosines)
    elif known and len(legs) == 1:
        measures = measure(labels, image, fat=fat, water=water, cosine=cosines or None, side=legs[0].side)
    else:
        if not labels.label_set.is_sided:
            notes.append("the side of the leg is not known; give it with --side to have it in the tables")
        measures = measure(labels, image, fat=fat, water=water, cosine=cosines or None)
    # Why there is no axis has been said, leg by leg.
    others = [text for text in measures.warnings if not (legs and text.startswith("no femur axis is known"))]
    return Measures(measures.structures, measures.slices, measures.asymmetry, (*notes, *others))


def assessed_measures(measures: Measures, assessment: Assessment) -> Measures:
    """Return measures with what their segmenter says of them.

    Parameters
    ----------
    measures : Measures
        Of the labels of the assessment, in whatever label set.
    assessment : Assessment
        What the segmenter said.

    Returns
    -------
    Measures
        Structures with a column ``expected_dice``, NaN where the segmenter says nothing of them. Slices that were not
        accepted have the status ``"not a thigh"``, and no area; structures that reach them are ``"cut"``: their volumes
        are lower bounds, as where the scan itself ends.
    """
    structures, slices = measures.structures.copy(), measures.slices.copy()
    names = (structures["structure"] + " " + structures["side"]).str.strip()
    structures["expected_dice"] = [assessment.confidence.get(name, float("nan")) for name in names]
    slices.loc[~assessment.accepted[slices["slice"].to_numpy()], "status"] = NOT_ASSESSED
    at_end = slices["slice"].isin(_last_accepted(assessment.accepted)) & (slices["voxels"] > 0)
    reached = set(zip(slices.loc[at_end, "structure"], slices.loc[at_end, "side"], strict=True))
    cut = [key in reached for key in zip(structures["structure"], structures["side"], strict=True)]
    structures.loc[np.array(cut, dtype=bool) & (structures["status"] == "ok"), "status"] = "cut"
    asymmetry = measures.asymmetry.copy()
    compared = asymmetry["structure"].isin([name for name, _ in reached]) & (asymmetry["status"] == "ok")
    asymmetry.loc[compared, "status"] = "cut"
    warnings = measures.warnings
    if reached:
        warnings = (
            *warnings,
            f"{len(reached)} structures reach the first or last slice that shows a thigh: their volumes are lower "
            "bounds, compare areas at one level instead",
        )
    return Measures(structures, slices, asymmetry, warnings)


def _last_accepted(accepted: NDArray[np.bool_]) -> list[int]:
    """Return the accepted slices beside which one is not."""
    beside = np.zeros_like(accepted)
    beside[1:] |= ~accepted[:-1]
    beside[:-1] |= ~accepted[1:]
    return [int(z) for z in np.flatnonzero(accepted & beside)]


def _legs(image: Image, side: Side | None, notes: list[str]) -> tuple[Leg, ...]:
    try:
        legs = split_legs(image, body_mask(image))
    except MusclekitError as problem:
        notes.append(f"the legs could not be told apart ({problem}); left and right are measured together")
        return ()
    if side is None:
        return legs
    if len(legs) > 1:
        notes.append(f"the side given ({side}) was not used: the scan shows two legs")
        return legs
    if legs[0].side not in (None, side):
        notes.append(
            f"the leg is measured as {side}, as given; what is seen of the other leg says it is {legs[0].side}"
        )
    return (Leg(side, legs[0].mask),)


def _cosines(labels: LabelMap, image: Image, legs: tuple[Leg, ...], notes: list[str]) -> dict[str, float]:
    """Cosine between slice normal and femur axis, by side; a leg whose axis is doubted is left out and noted."""
    found: dict[str, float] = {}
    doubts: dict[str, str] = {}
    for leg in legs:
        bone = _femur(labels, image, leg)
        side = leg.side or ""
        if bone is None or not bone.any():
            doubts[side] = "the femur was not found"
            continue
        axis = femur_axis(bone, labels.grid, max_angle_deg=LARGEST_ANGLE_DEG)
        if axis.reliable:
            found[side] = obliquity_cosine(axis, labels.grid)
        else:
            doubts[side] = axis.doubt
    if doubts:
        reasons = "; ".join(f"{side} {doubt}".strip() for side, doubt in doubts.items())
        notes.append(f"areas are not corrected for obliquity: {reasons}")
    return found


def _femur(labels: LabelMap, image: Image, leg: Leg) -> NDArray[np.bool_] | None:
    """Femur of one leg: CT shows it; in MR the labels have to hold it."""
    if image.contrast is Contrast.CT:
        try:
            return femur_mask(image, leg.mask)
        except SegmentationError:
            return None
    names = BONE_LABELS.get(labels.label_set.unsided().name)
    return None if names is None else labels.mask(*names) & leg.mask


def scan_details(scan: Scan) -> dict[str, str]:
    """Return the facts of a scan that its report shows."""
    grid = scan.image.grid
    sources = {"given": "as given", "dicom": "from DICOM tags", "guessed": "guessed from the values"}
    return {
        "contrast": f"{scan.image.contrast} ({sources[scan.contrast_source]})",
        "slices, rows, columns": " x ".join(str(n) for n in grid.shape),
        "spacing": " x ".join(f"{s:.4g}" for s in grid.spacing) + " mm",
        "file": scan.path.name,
    }


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all, with six significant digits: the same numbers are the same bytes."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def write_measures(measures: Measures, folder: Path, name: str) -> None:
    """Write ``<name>_measures.csv`` (structures), ``<name>_slices.csv`` and ``<name>_measures.json`` (everything)."""
    write_table(measures.structures, folder / f"{name}_measures.csv")
    write_table(measures.slices, folder / f"{name}_slices.csv")
    write_json(measures.as_dict(), folder / f"{name}_measures.json")
