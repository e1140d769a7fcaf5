"""HD95 and mean surface distance, of a label and of many predictions of one: beside MONAI, SimpleITK and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from benchmarks.measures import muscles
from benchmarks.timing import Row, once, seconds, table
from musclekit.image import LabelMap
from musclekit.metrics import ReferenceSurface, average_surface_distance, hausdorff95, surface_distances

N_PREDICTIONS = 240
LABELS = ("sartorius", "vastus lateralis", "adductor magnus", "semitendinosus")


def monai(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

        one, other = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (a, b))
        asd = compute_average_surface_distance(one, other, symmetric=True, spacing=spacing)
        return float(asd), float(compute_hausdorff_distance(one, other, percentile=95, spacing=spacing))


def simpleitk(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """The recipe of SimpleITK's own notebook: a distance map of the whole grid for each surface."""
    images = []
    for mask in (a, b):
        # LabelContour sees no surface where a label is cut by the border of the array; MONAI and we do.
        image = sitk.GetImageFromArray(np.pad(mask.astype(np.uint8), 1))
        image.SetSpacing(spacing[::-1])
        images.append(image)
    distances = []
    for one, other in (images, images[::-1]):
        surface = sitk.LabelContour(other)
        far = sitk.GetArrayFromImage(
            sitk.Abs(sitk.SignedMaurerDistanceMap(surface, squaredDistance=False, useImageSpacing=True))
        )
        distances.append(far[sitk.GetArrayFromImage(sitk.LabelContour(one)) > 0])
    pooled = np.concatenate(distances)
    return float(pooled.mean()), float(np.percentile(pooled, 95))


def scipy(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """The plain way with SciPy, as careful users write it: a distance map for each surface, in the box around both."""
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    structure = ndimage.generate_binary_structure(a.ndim, 1)
    one, other = (mask[box] & ~ndimage.binary_erosion(mask[box], structure) for mask in (a, b))
    pooled = np.concatenate(
        [ndimage.distance_transform_edt(~to, spacing)[of] for of, to in ((one, other), (other, one))]
    )
    return float(pooled.mean()), float(np.percentile(pooled, 95))


def ours(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    distances = surface_distances(a, b, spacing)
    return average_surface_distance(distances), hausdorff95(distances)


def rows() -> list[Row]:
    _, labels = muscles(120)
    spacing = labels.grid.spacing
    pairs = []
    for name in LABELS:
        wanted = labels.voxels == labels.label_set.ids_of(name, "left")[0]
        # A segmentation that is a voxel too large, and displaced.
        pairs.append((np.roll(ndimage.binary_dilation(wanted), 2, axis=2), wanted))
    ours(*pairs[0], spacing), monai(*pairs[0], spacing)  # imports are not measured
    taken = np.mean([seconds(lambda pair=pair: ours(*pair, spacing)) for pair in pairs])
    found = []
    for name, peer in (("MONAI", monai), ("SimpleITK, whole grid", simpleitk), ("SciPy, box around both", scipy)):
        answers: list[tuple[float, float]] = []
        slow = np.mean(
            [once(lambda pair=pair, peer=peer, into=answers: into.append(peer(*pair, spacing))) for pair in pairs]
        )
        apart = max(abs(ours(*pair, spacing)[0] - answer[0]) for pair, answer in zip(pairs, answers, strict=True))
        note = f"mean of {len(pairs)} labels; ASD differs by {apart:.1g} mm"
        found.append(Row("HD95 + ASD of a label of CT 512x512x120", float(taken), 0.15, name, float(slow), note))
    return found + many(labels)


def many(labels: LabelMap) -> list[Row]:
    """Predictions of one reference at the size of the phantom cohort: as many as a grid search makes of a case."""
    spacing = (15 * labels.grid.spacing[0], *(2 * s for s in labels.grid.spacing[1:]))
    left = np.isin(labels.voxels, labels.label_set.ids_of("vastus lateralis"))[::15, ::2, ::2]
    reference = left[:, left.any(axis=(0, 2))][:, :, left.any(axis=(0, 1))]
    reference = np.pad(reference, ((0, 0), (8, 8), (8, 8)))
    rng = np.random.default_rng(0)
    inside = ndimage.gaussian_filter(reference.astype(float), (0, 1.5, 1.5))
    predictions = []
    for _ in range(N_PREDICTIONS):
        noise = ndimage.gaussian_filter(rng.standard_normal(reference.shape), (0, 2, 2))
        predictions.append(inside + 0.2 * noise / noise.std() > rng.uniform(0.4, 0.6))

    def prepared() -> list[tuple[float, float]]:
        ready = ReferenceSurface(reference, spacing)
        measured = [ready.distances(prediction) for prediction in predictions]
        return [(average_surface_distance(distances), hausdorff95(distances)) for distances in measured]

    taken, answers = seconds(prepared), prepared()
    found = []
    for name, peer in (("each pair by itself", ours), ("MONAI", monai), ("SciPy, box around both", scipy)):
        theirs: list[tuple[float, float]] = []
        slow = once(lambda peer=peer, into=theirs: into.extend(peer(p, reference, spacing) for p in predictions))
        apart = max(abs(mine[0] - other[0]) for mine, other in zip(answers, theirs, strict=True))
        size = "x".join(str(length) for length in reference.shape)
        operation = f"HD95 + ASD, {N_PREDICTIONS} predictions of one reference {size}"
        found.append(Row(operation, taken, None, name, slow, f"ASD differs by {apart:.1g} mm"))
    return found


if __name__ == "__main__":
    print(table(rows()))
