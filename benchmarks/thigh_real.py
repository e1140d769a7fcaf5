"""The segmenter of any contrast on real scans, none of which it learnt from.

    python -m benchmarks.thigh_real --data ../shared/data [--checkpoint FILE] [-o FOLDER] [--write]

Prints how it agrees with the labels that come with the scans (made by other networks), what of the muscle of CT it
finds, and which slices it takes for a thigh, beside those that were named by eye (`benchmarks/thigh_slices.csv`). With
``-o`` draws a sheet of each scan.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.classical import put_between
from benchmarks.real_unets import REAL, in_set
from musclekit import io
from musclekit.anatomy import body_mask, split_legs
from musclekit.image import Assessment, Case, Contrast, Image, LabelMap
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import dice
from musclekit.registry import build
from musclekit.report import montage
from musclekit.segmenters.thigh import WEIGHTS, ThighSegmenter

DOCUMENT = Path(__file__).parents[1] / "docs" / "results_any_contrast.md"
SLICES = Path(__file__).with_name("thigh_slices.csv")
#: Muscle in CT, once the noise of a low dose is taken out by the median of 3 x 3 pixels.
MUSCLE_HU = (-30.0, 150.0)
#: Skin has the grey values of muscle: what lies this close to the air does not count.
SKIN_MM = 5.0
#: Edge of the network's pixels.
RIM_MM = 2.0
#: The middle of the thigh lies this far from where it ends, if that is in view.
FROM_ENDS_MM = 60.0
ELEVEN = label_set("thigh-11")


@dataclass(frozen=True)
class Found:
    """A scan and what was found in it."""

    name: str
    image: Image
    result: Assessment
    thigh: NDArray[np.bool_]


def named_by_eye() -> dict[str, tuple[int, int]]:
    """Return the first and the last slice of each scan that show a thigh."""
    with SLICES.open(encoding="utf-8", newline="") as stream:
        return {row["scan"]: (int(row["first"]), int(row["last"])) for row in csv.DictReader(stream)}


def scans(data: Path) -> Iterator[tuple[str, Image, NDArray[np.bool_]]]:
    """Yield every scan, and which of its slices show a thigh."""
    for name, (first, last) in named_by_eye().items():
        folder, _, person = name.partition("/")
        if folder == "sts":
            ct = io.read(next((data / name).glob("CT_image*")), contrast=Contrast.CT)
            mr = io.read(next((data / name).glob("MR_T1_image*")), contrast=Contrast.T1W)
            low, high = (ct.grid.world((z, 0, 0))[2] for z in (first - 0.5, last + 0.5))
            for what, image in (("CT", ct), ("T1", mr)):
                heights = image.grid.world([(z, 0, 0) for z in range(image.grid.shape[0])])[:, 2]
                yield f"{person} {what}", image, (heights > min(low, high)) & (heights < max(low, high))
        else:
            for contrast in ("fat", "water") if folder == "huashan" else ("mr",):
                stem = f"{name}_{contrast}" if folder == "huashan" else name
                image = io.read(data / f"{stem}.nii.gz", contrast=Contrast(contrast))
                at = np.arange(image.grid.shape[0])
                yield f"{person} {contrast}", image, (at >= first) & (at <= last)


def muscle_window(image: Image) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what of a CT is muscle by its grey values, what bone, and where there are legs.

    Pieces of the other leg at an edge are no legs: nobody could tell their muscles apart.
    """
    body = body_mask(image)
    legs = np.logical_or.reduce([leg.mask for leg in split_legs(image, body)])
    pixel = image.grid.spacing[1]
    muscle, bone = np.zeros_like(body), np.zeros_like(body)
    for z, plane in enumerate(image.voxels):
        smooth: NDArray[np.float32] = np.asarray(cv2.medianBlur(plane, 3), dtype=np.float32)
        depth = cv2.distanceTransform(np.pad(body[z], 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        inner = np.asarray(depth) * pixel > SKIN_MM
        muscle[z] = inner & (smooth > MUSCLE_HU[0]) & (smooth < MUSCLE_HU[1])
        bone[z] = inner & (smooth >= MUSCLE_HU[1])
    return muscle, bone, legs


def tumour_slices(data: Path, name: str, image: Image) -> NDArray[np.bool_]:
    """Return the slices of a CT that show the tumour."""
    mask = io.read(next((data / "sts" / name).glob("CT_mask*")), contrast=Contrast.MR)
    found = np.asarray((mask.voxels > 0).any(axis=(1, 2)))
    assert len(found) == image.grid.shape[0]
    return found


def agreement(data: Path, method: ThighSegmenter) -> Iterator[str]:
    """Yield the rows of a table: agreement with the labels of the real scans."""
    yield "| scan | union: median, worst slice | mean of 11 | " + " | ".join(m.abbreviation for m in ELEVEN) + " |"
    yield "|---" * (3 + len(ELEVEN)) + "|"
    for path, contrast, person, labels, meaning in REAL:
        scan = io.read(data / path, contrast=Contrast(contrast))
        reference = in_set(io.read_labels(data / labels, label_set(meaning)))
        found = in_set(method.assess(scan).labels)
        union = [dice(found.mask()[z], reference.mask()[z]) for z in np.flatnonzero(reference.mask().any(axis=(1, 2)))]
        each = [dice(found.mask(muscle.name), reference.mask(muscle.name)) for muscle in ELEVEN]
        shown = " | ".join(f"{value:.2f}" for value in (float(np.mean(each)), *each))
        yield f"| {person}, {contrast} | {np.median(union):.3f}, {min(union):.2f} | {shown} |"


def with_cuts(data: Path, checkpoint: str) -> Iterator[str]:
    """Yield the rows of a table: all muscle as found, and once its probabilities went through a graph cut.

    The shape prior is made of the two other people.
    """
    thigh = {"name": "thigh", "labels": "muscle", "checkpoint": checkpoint}
    methods = {
        "thigh": build(**thigh),
        "graph cut": build("graphcut", unary=thigh),
        "graph cut, weak": build("graphcut", unary=thigh, smoothness=0.05),
        "smoothed": build("refined", segmenter=thigh, refiner="smooth"),
        "shape prior": build("spgc", unary=thigh, smoothness=0.05, neutral_probability=0.2),
    }
    yield "| scan | " + " | ".join(methods) + " |"
    yield "|---" * (1 + len(methods)) + "|"
    for path, contrast, person, labels, meaning in REAL:
        scan = io.read(data / path, contrast=Contrast(contrast))
        reference = in_set(io.read_labels(data / labels, label_set(meaning))).mask()
        planes = np.flatnonzero(reference.any(axis=(1, 2)))
        medians = []
        others = people_but(person, data)
        for method in methods.values():
            found = method.fit(others).segment(scan).mask()
            medians.append(np.median([dice(found[z], reference[z]) for z in planes]))
        yield f"| {person}, {contrast} | " + " | ".join(f"{value:.3f}" for value in medians) + " |"


def people_but(left_out: str, data: Path) -> list[Case]:
    """Return a case of each of the other people with labels."""
    cases = {}
    for path, contrast, person, labels, meaning in REAL:
        if person not in (left_out, *cases):
            image = io.read(data / path, contrast=Contrast(contrast))
            reference = io.read_labels(data / labels, label_set(meaning))
            cases[person] = Case(person, person, {image.contrast: image}, reference=reference)
    return list(cases.values())


def ct_rows(data: Path, found: list[Found]) -> Iterator[str]:
    """Yield the rows of a table: what of the muscle of CT is found in slices without a tumour."""
    yield (
        "| patient | slices | muscle by its HU: median Dice, worst | in the legs alone | mid-thigh: slices, median "
        "| on bone, % | of that beside the femur, % |"
    )
    yield "|---|---|---|---|---|---|---|"
    medians: list[float] = []
    all_slices: list[float] = []
    in_legs: list[float] = []
    bones: list[float] = []
    rims: list[float] = []
    for one in (one for one in found if one.name.endswith(" CT")):
        muscle, bone, legs = muscle_window(one.image)
        labels = one.result.labels
        told = labels.mapped(label_mapping(labels.label_set, label_set("muscle"))).mask()
        clear = one.result.accepted & ~tumour_slices(data, one.name.split()[0], one.image)
        if not clear.any():
            yield f"| {one.name} | 0 | – | – | – | – | – |"
            continue
        each = {int(z): dice(told[z], muscle[z]) for z in np.flatnonzero(clear)}
        legs_alone = [dice(told[z] & legs[z], muscle[z] & legs[z]) for z in each]
        mid = [value for z, value in each.items() if in_the_middle(one)[z]]
        wrong = (told & bone)[clear]
        on_bone = float(wrong.sum() / max(told[clear].sum(), 1))
        rim = float((wrong & beside_femur(labels)[clear]).sum() / max(wrong.sum(), 1))
        if mid:
            medians.append(float(np.median(mid)))
        all_slices += each.values()
        in_legs += legs_alone
        bones.append(on_bone)
        rims.append(rim)
        values = list(each.values())
        yield (
            f"| {one.name} | {len(each)} | {np.median(values):.3f}, {min(values):.2f} | {np.median(legs_alone):.3f} | "
            f"{len(mid)}{f', {medians[-1]:.3f}' if mid else ''} | {100 * on_bone:.2f} | {100 * rim:.0f} |"
        )
    yield (
        f"| all | {len(all_slices)} | {np.median(all_slices):.3f}, {min(all_slices):.2f} | {np.median(in_legs):.3f} | "
        f"median of {len(medians)} patients {np.median(medians):.3f} | {100 * np.median(bones):.2f} | "
        f"{100 * np.median(rims):.0f} |"
    )


def beside_femur(labels: LabelMap) -> NDArray[np.bool_]:
    """Return what lies within a pixel of the network's from what is labelled femur."""
    femur = labels.mask("femur")
    reach = RIM_MM / labels.grid.spacing[1]
    return np.stack([cv2.distanceTransform((~plane).astype(np.uint8), cv2.DIST_L2, 5) <= reach for plane in femur])


def in_the_middle(one: Found) -> NDArray[np.bool_]:
    """Return the slices of a thigh that lie far from its ends, where those are in view."""
    at = np.flatnonzero(one.thigh)
    margin = FROM_ENDS_MM / one.image.grid.spacing[0]
    height = np.arange(len(one.thigh))
    low = at[0] + margin if at[0] > 0 else -1
    high = at[-1] - margin if at[-1] < len(one.thigh) - 1 else len(one.thigh)
    return one.thigh & (height >= low) & (height <= high)


def acceptance(found: list[Found]) -> Iterator[str]:
    """Yield the rows of a table: slices taken for a thigh."""
    yield "| scan | of the thigh, accepted | of the rest, accepted |"
    yield "|---|---|---|"
    totals = np.zeros(4, dtype=np.int64)
    for one in found:
        yes = one.result.accepted
        row = np.array([(yes & one.thigh).sum(), one.thigh.sum(), (yes & ~one.thigh).sum(), (~one.thigh).sum()])
        totals += row
        yield f"| {one.name} | {row[0]} of {row[1]} | {row[2]} of {row[3]} |"
    yield (
        f"| all | {totals[0]} of {totals[1]} ({totals[0] / totals[1]:.1%}) | {totals[2]} of {totals[3]} "
        f"({totals[2] / totals[3]:.1%}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", default=WEIGHTS)
    parser.add_argument("-o", "--out", type=Path, default=None, help="sheets of the scans")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    given = parser.parse_args()

    def show(marker: str, lines: list[str]) -> None:
        print("\n".join(("", *lines)), flush=True)
        if given.write:
            put_between(DOCUMENT, marker, lines)

    show("agreement", list(agreement(given.data, ThighSegmenter(checkpoint=given.checkpoint, labels="thigh-11-sided"))))
    whole = ThighSegmenter(checkpoint=given.checkpoint)
    found = []
    for name, image, thigh in scans(given.data):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            result = whole.assess(image)
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / f"{name.replace(' ', '_')}.png").write_bytes(montage(image, result.labels))
            print(f"{name}: {'; '.join(result.notes)}", flush=True)
        found.append(Found(name, image, result, thigh))
    show("ct", list(ct_rows(given.data, found)))
    show("acceptance", list(acceptance(found)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # Minutes a row.
        show("cuts", list(with_cuts(given.data, given.checkpoint)))


if __name__ == "__main__":
    main()
