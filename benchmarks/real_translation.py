"""MR to CT on real patients: fake CT against the registered real one; tables of docs/results_translation.md.

    python -m benchmarks.real_translation --data ../shared/data -o runs/real_translation [--write] [--release]

26 patients of `sts`, split by patient. Training draws MR and CT slices of the first part without pairing them; that
the two are registered is used for checking alone, on patients it never saw. What stands beside it needs no network: MR
as it is, MR bent to the histogram of the training patients' CT, and a straight line from MR to Hounsfield units. These
two are fitted on registered pairs of the training patients, which is more than the network is given.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity
from skimage.morphology import remove_small_objects

from benchmarks.classical import put_between
from benchmarks.real_mr import FILLED_SHARE, SAME_BODY_DICE, onto
from musclekit import io
from musclekit.anatomy import body_mask
from musclekit.image import Contrast, Image
from musclekit.metrics import dice
from musclekit.neural.cards import TranslatorCard
from musclekit.neural.checkpoint import load_checkpoint, save_checkpoint
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW
from musclekit.registry import build
from musclekit.statistics import bootstrap_by_subject, wilcoxon_signed_rank
from musclekit.weights import FOLDER
from musclekit.workflows.train import train_on_manifest

HERE = Path(__file__).parent
NETWORK = "mr-to-ct"
LICENCE = "Apache-2.0; learnt from data under CC BY 3.0, to be cited"
LIMITS = (
    "Learnt from 19 patients with a sarcoma of the thigh, which most slices show; MR and CT were cropped around it.",
    "Fake CT is for segmentation. Its Hounsfield units measure nothing.",
    "Bone that the MR does not show may appear, and bone that it shows may be missing.",
)
DOCUMENT = HERE.parent / "docs" / "results_translation.md"

#: Every so-manieth patient is held out.
HELD_OUT_EVERY = 4
#: Voxels on each side (x, y, z) of the median that CTs to be learnt from are smoothed by.
MEDIAN = (2, 2, 1)
#: Values of a patient that lines and histograms are fitted on.
DRAWN = 20_000

#: What is denser is bone, if it is larger than a speck.
BONE_HU, SPECK_PX = 200, 30

#: Column -> digits after the point.
MEASURES = {"mae": 0, "mae_clear": 0, "ssim": 3, "ssim_clear": 3, "bone": 2}

Mapped = Callable[[Image, NDArray[np.bool_]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Pair:
    """MR and CT of a patient on the grid of the MR.

    ``planes`` are the slices that both show whole; ``clear`` those of them that the tumour's contour leaves free.
    """

    name: str
    mr: Image
    ct: Image
    inside: NDArray[np.bool_]
    planes: tuple[int, ...]
    clear: tuple[int, ...]


def write_manifest(data: Path, path: Path) -> Path:
    """Write the manifest of all patients; MR and CT are scans of their own, one case each.

    CTs to be learnt from are smoothed: they are of low dose, and a network that makes smooth images would give itself
    away by that alone, so that the discriminator need learn no anatomy.
    Tumours are trained on like everything else: there are too few slices without. The column ``tumour_slices`` says in
    how many of a scan there is some.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["case_id", "subject", "image", "modality", "split", "tumour_slices"])
        for n, folder in enumerate(sorted((data / "sts").glob("STS_*"))):
            split = "test" if n % HELD_OUT_EVERY == 0 else "train"
            for name, modality in (("MR_T1", "t1w"), ("CT", "ct")):
                tumour = io.read(folder / f"{name}_mask.nii.gz", contrast=Contrast.MR).voxels > 0.5
                image = (folder / f"{name}_image.nii.gz").resolve()
                if modality == "ct" and split == "train":
                    smooth = SimpleITK.Median(SimpleITK.ReadImage(str(image)), MEDIAN)
                    image = path.parent.resolve() / f"{folder.name}_ct.nii.gz"
                    SimpleITK.WriteImage(smooth, str(image))
                slices = f"{np.count_nonzero(tumour.any(axis=(1, 2)))} of {len(tumour)}"
                table.writerow([f"{folder.name}_{modality}", folder.name, image, modality, split, slices])
    return path


def read_pair(folder: Path) -> Pair:
    """Read a patient; the CT is brought to the MR's grid by linear interpolation."""
    mr = io.read(folder / "MR_T1_image.nii.gz", contrast=Contrast.T1W)
    ct = io.read(folder / "CT_image.nii.gz", contrast=Contrast.CT)
    tumour = io.read(folder / "MR_T1_mask.nii.gz", contrast=Contrast.MR).voxels > 0.5
    index = np.stack(np.indices(mr.grid.shape), axis=-1).reshape(-1, 3)
    there = ct.grid.index(mr.grid.world(index)).T.reshape(3, *mr.grid.shape)
    hu = ndimage.map_coordinates(ct.voxels, there, order=1, cval=-1000.0)
    known = onto(mr, np.ones(ct.grid.shape, dtype=np.bool_), ct)
    bodies = onto(mr, body_mask(ct), ct), body_mask(mr)
    planes = tuple(
        z
        for z in range(len(mr.voxels))
        if np.mean(mr.voxels[z] > 0) >= FILLED_SHARE
        and dice(bodies[0][z] & known[z], bodies[1][z] & known[z]) >= SAME_BODY_DICE
    )
    clear = tuple(z for z in planes if not tumour[z].any())
    inside = bodies[0] & bodies[1] & known
    return Pair(folder.name, mr, Image(hu.astype(np.float32), mr.grid, Contrast.CT), inside, planes, clear)


def fitted(pairs: list[Pair]) -> Mapping[str, Mapped]:
    """Return what needs no network: identity, line and histogram, from scaled MR to HU."""
    rng = np.random.default_rng(0)
    grey, hu = [], []
    for pair in pairs:
        use = np.zeros_like(pair.inside)
        use[list(pair.planes)] = pair.inside[list(pair.planes)]
        if not use.any():
            continue
        drawn = rng.choice(np.flatnonzero(use), DRAWN)
        grey.append(MR_WINDOW.scale_of(pair.mr).to_unit(pair.mr.voxels.flat[drawn]))
        hu.append(np.clip(pair.ct.voxels.flat[drawn], CT_WINDOW.low, CT_WINDOW.high))
    slope, offset = np.polyfit(np.concatenate(grey), np.concatenate(hu), 1)
    shares = np.linspace(0, 1, 101)
    quantiles = np.quantile(np.concatenate(hu), shares)

    def line(mr: Image, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
        return (offset + slope * MR_WINDOW.scale_of(mr).to_unit(mr.voxels)).astype(np.float32)

    def histogram(mr: Image, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.interp(mr.voxels, np.quantile(mr.voxels[inside], shares), quantiles).astype(np.float32)

    def identity(mr: Image, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
        unit = MR_WINDOW.scale_of(mr).to_unit(mr.voxels)
        return (CT_WINDOW.low + (unit + 1) / 2 * (CT_WINDOW.high - CT_WINDOW.low)).astype(np.float32)

    return {"identity, in the CT window": identity, "straight line": line, "histogram-match": histogram}


def compare(pair: Pair, hu: NDArray[np.float32]) -> dict[str, float]:
    """Compare a fake CT with the real one, inside the body, on whole slices; outside both are air."""
    fake, real = (
        np.where(pair.inside, np.clip(voxels, CT_WINDOW.low, CT_WINDOW.high), CT_WINDOW.low).astype(np.float32)
        for voxels in (hu, pair.ct.voxels)
    )
    found: dict[str, float] = {}
    for name, planes in (("", pair.planes), ("_clear", pair.clear)):
        inside = [pair.inside[z] for z in planes]
        if not planes or not np.any(inside):
            continue
        errors = np.concatenate([np.abs(fake[z] - real[z])[pair.inside[z]] for z in planes])
        similar = []
        for z in planes:
            _, local = structural_similarity(
                real[z], fake[z], data_range=CT_WINDOW.high - CT_WINDOW.low, gaussian_weights=True, full=True
            )
            similar.append(local[pair.inside[z]])
        found |= {f"mae{name}": float(errors.mean()), f"ssim{name}": float(np.concatenate(similar).mean())}
    found["bone"] = _bone_dice(pair, hu)
    return found


def _bone_dice(pair: Pair, hu: NDArray[np.float32]) -> float:
    """Dice of the bones, marrow included, of the slices compared; NaN where there is no bone."""
    bones = [np.stack([_bone(voxels[z], pair.inside[z]) for z in pair.planes]) for voxels in (pair.ct.voxels, hu)]
    return dice(*bones) if bones[0].any() else float("nan")


def _bone(plane: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is as dense as cortical bone and not a speck, and what it encloses."""
    dense = remove_small_objects(inside & (plane > BONE_HU), max_size=SPECK_PX)
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(dense)
    return filled


def spread(found: pd.Series[float], digits: int) -> str:
    return f"{found.median():.{digits}f} ({found.min():.{digits}f} to {found.max():.{digits}f})"


def table(rows: pd.DataFrame) -> list[str]:
    lines = [
        "| method | patients | MAE, HU | tumour-free slices | SSIM | tumour-free slices | bone Dice |",
        "|---" * 7 + "|",
    ]
    for name, part in rows.groupby("method", sort=False):
        cells = [spread(part[column], digits) for column, digits in MEASURES.items()]
        lines.append(f"| {name} | {len(part)} | {' | '.join(cells)} |")
    return lines


def differences(rows: pd.DataFrame) -> dict[str, tuple[float, float, float, float]]:
    """MAE of the network less that of each baseline, by patient: median, its 95 % interval, Wilcoxon's p."""
    errors = rows.pivot_table(index="patient", columns="method", values="mae", sort=False)
    found = {}
    for name in (name for name in errors if name != NETWORK):
        gain = errors[NETWORK] - errors[name]
        median = bootstrap_by_subject(gain)
        p = wilcoxon_signed_rank(errors[NETWORK], errors[name]).p
        found[str(name)] = (median.estimate, median.interval.low, median.interval.high, p)
    return found


def pair_table(rows: pd.DataFrame) -> list[str]:
    lines = ["| MAE of mr-to-ct less that of | median difference, HU | 95 % | Wilcoxon p |", "|---" * 4 + "|"]
    for name, (median, low, high, p) in differences(rows).items():
        lines.append(f"| {name} | {median:+.0f} | {low:+.0f} to {high:+.0f} | {p:.3f} |")
    return lines


def release(trained: Path, rows: pd.DataFrame) -> None:
    """Put the network into the package; refuse one that does not come nearer to CT than every baseline."""
    compared = differences(rows)
    if not all(high < 0 for _, _, high, _ in compared.values()):
        raise SystemExit(f"not released: {compared}")
    ours = rows[rows["method"] == NETWORK]
    scores = {
        "patients": f"{len(ours)} of the data, held out",
        "mae_hu": round(float(ours["mae"].median()), 1),
        "ssim": round(float(ours["ssim"].median()), 3),
        "dice_bone": round(float(ours["bone"].median()), 3),
        **{f"mae_less_that_of_{name}": [round(value, 1) for value in found[:3]] for name, found in compared.items()},
    }
    network, card = load_checkpoint(trained, TranslatorCard)
    name = f"{NETWORK}-{card.source.contrast}"
    card = replace(card, name=name, scores=scores, limits=(*LIMITS, *card.limits), licence=LICENCE)
    written = save_checkpoint(FOLDER / f"{name}.pt", network, card, half=True)
    text = json.dumps(written.as_data(), indent=2, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of the scans")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the training and of the tables")
    parser.add_argument("--jobs", type=int, default=2, help="processors to train with")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.relative_to(HERE.parent)}")
    parser.add_argument("--release", action="store_true", help="put the network into the package")
    given = parser.parse_args()
    manifest = write_manifest(given.data, given.out / "manifest.csv")
    plan = HERE / "plans" / "mr_to_ct_cpu.toml"
    trained = train_on_manifest(plan, manifest, given.out / "mr_to_ct", jobs=given.jobs)
    network = build(NETWORK, checkpoint=str(trained.forward))
    split = pd.read_csv(manifest).drop_duplicates("subject").set_index("subject")["split"]
    pairs = {name: read_pair(given.data / "sts" / name) for name in split.index}
    methods = dict(fitted([pair for name, pair in pairs.items() if split[name] == "train"]))
    methods[NETWORK] = lambda mr, _: network.translate(mr).voxels
    rows = []
    for name, pair in pairs.items():
        if split[name] == "test" and pair.planes:
            for method, mapped in methods.items():
                rows.append({"patient": name, "method": method, **compare(pair, mapped(pair.mr, pair.inside))})
            print(f"{name}: {len(pair.planes)} slices, {len(pair.clear)} free of tumour", flush=True)
    results = pd.DataFrame(rows)
    results.to_csv(given.out / "patients.csv", index=False)
    lines = [*table(results), "", *pair_table(results)]
    print("\n".join(lines))
    if given.write:
        put_between(DOCUMENT, "mr-to-ct", lines)
    if given.release:
        release(trained.forward, results)


if __name__ == "__main__":
    main()
