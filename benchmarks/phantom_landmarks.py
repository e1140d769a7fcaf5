"""Where the muscles lie in people: remakes musclekit/phantom/landmarks.csv from given label maps.

    python benchmarks/phantom_landmarks.py ../shared/data/huashan_labels > landmarks.csv

Each thigh is put on a scale of levels by two landmarks that every label map shows: the middle of vastus medialis, level
0.28, and that of adductor magnus, level 0.65. At eleven levels the parts of the muscles are measured relative to the
convex hull of all muscles: centre, and second moments, in units of the radius of a circle of the hull's area. Medians
over the thighs make the table; medians of the hull's radius and Fourier coefficients go to stderr. The tables in
musclekit/phantom/shape.py stand on those, smoothed and, above level 0.8 where few maps reach, continued by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.io import read_labels
from musclekit.labels import label_set
from musclekit.phantom import MUSCLES
from musclekit.phantom.shape import LEVELS

#: Muscles that bend round the femur, or are wide, are measured in parts of equal area.
PARTS = {"vastus lateralis": 3, "vastus intermedius": 3, "vastus medialis": 2, "adductor magnus": 2}
VASTUS_MEDIALIS_LEVEL, ADDUCTOR_LEVEL = 0.28, 0.65


def legs(path: Path) -> Iterator[tuple[NDArray[np.uint8], tuple[float, float, float]]]:
    """Both legs of a label map, columns growing away from the middle of the body."""
    labels = read_labels(path, label_set("huashan-11"))
    voxels = labels.voxels.astype(np.uint8)
    mass = (voxels > 0).sum(axis=(0, 1))
    first, last = np.flatnonzero(mass)[[0, -1]]
    third = int(0.35 * (last - first))
    middle = first + third + int(mass[first + third : last - third].argmin())
    yield voxels[:, :, :middle][:, :, ::-1], labels.grid.spacing
    yield voxels[:, :, middle:], labels.grid.spacing


def planes(leg: NDArray[np.uint8], dz: float) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Index of a level and the plane nearest to it."""
    heights = np.arange(len(leg))
    counts = [(leg == MUSCLES.index(name) + 1).sum(axis=(1, 2)) for name in ("vastus medialis", "adductor magnus")]
    if min(count.sum() for count in counts) < 1000:
        return
    low, high = (float(count @ heights / count.sum()) for count in counts)
    length = (high - low) / (ADDUCTOR_LEVEL - VASTUS_MEDIALIS_LEVEL)
    print(f"length {length * dz:.0f} mm", file=sys.stderr)
    for n, level in enumerate(LEVELS):
        k = round(low + (level - VASTUS_MEDIALIS_LEVEL) * length)
        if 0 <= k < len(leg):
            yield n, leg[k]


def femur_gap(plane: NDArray[np.uint8], hull: NDArray[np.uint8], dx: float) -> NDArray[np.float64] | None:
    """Centre of the largest disc between the muscles within 20 mm of vastus intermedius."""
    beside = plane == MUSCLES.index("vastus intermedius") + 1
    if beside.sum() <= 30:
        return None
    room = cv2.distanceTransform(((hull > 0) & (plane == 0)).astype(np.uint8), cv2.DIST_L2, 5)
    near = cv2.distanceTransform((~beside).astype(np.uint8), cv2.DIST_L2, 5) * dx < 20
    row, column = np.unravel_index(int((room * near).argmax()), room.shape)
    return np.array([column, row], dtype=float)


def parts_of(name: str, points: NDArray[np.float64], femur: NDArray[np.float64] | None) -> list[NDArray[np.float64]]:
    """Points of each part: cut by the angle about the femur, starting behind it, or for the adductors sideways."""
    if name not in PARTS:
        return [points]
    if name == "adductor magnus":
        key = points[:, 0]
    elif femur is None:
        return []
    else:
        key = np.mod(np.arctan2(*(points - femur)[:, ::-1].T) + np.pi / 2, 2 * np.pi)
    return np.array_split(points[np.argsort(key)], PARTS[name])


def main() -> None:
    found: dict[tuple[str, int, int], list[list[float]]] = {}
    outlines: dict[int, list[list[float]]] = {}
    seen = np.zeros(len(LEVELS), dtype=int)
    for path in sorted(Path(sys.argv[1]).glob("*.nii.gz")):
        for leg, (dz, dy, dx) in legs(path):
            for n, plane in planes(leg, dz):
                if (plane > 0).sum() * dx * dy < 1500:
                    continue
                seen[n] += 1
                hull = np.zeros_like(plane)
                cv2.fillConvexPoly(hull, cv2.convexHull(np.argwhere(plane)[:, ::-1].astype(np.int32)), 1)
                scale = np.array([dx, dy])
                inside = np.argwhere(hull)[:, ::-1] * scale
                centre, radius = inside.mean(axis=0), np.sqrt(len(inside) * dx * dy / np.pi)
                outlines.setdefault(n, []).append([radius, *fourier(inside - centre, radius)])
                femur = femur_gap(plane, hull, dx)
                for index, name in enumerate(MUSCLES, start=1):
                    points = np.argwhere(plane == index)[:, ::-1] * scale
                    if len(points) * dx * dy < 40:
                        continue
                    for g, part in enumerate(parts_of(name, points, None if femur is None else femur * scale)):
                        u, v = (part.mean(axis=0) - centre) / radius
                        (uu, uv), (_, vv) = np.cov(part.T / radius)
                        found.setdefault((name, g, n), []).append([u, v, uu, vv, uv])
    print("muscle,part,level,u,v,uu,vv,uv")
    for name in MUSCLES:
        for g in range(PARTS.get(name, 1)):
            for n, level in enumerate(LEVELS):
                rows = found.get((name, g, n), [])
                if len(rows) > 0.3 * seen[n]:
                    u, v, *moments = np.median(rows, axis=0)
                    print(f"{name},{g},{level:.1f},{u:.3f},{v:.3f}," + ",".join(f"{m:.4f}" for m in moments))
    for n, rows in outlines.items():
        print(f"level {LEVELS[n]:.1f}:", np.median(rows, axis=0).round(3).tolist(), file=sys.stderr)


def fourier(points: NDArray[np.float64], radius: float) -> list[float]:
    """Cosine and sine coefficients, orders 2 to 5, of the outline of a region about its centre."""
    edges = np.linspace(-np.pi, np.pi, 49)
    sector = np.digitize(np.arctan2(points[:, 1], points[:, 0]), edges) - 1
    far = np.hypot(points[:, 0], points[:, 1])
    profile = np.array([far[sector == n].max(initial=0) / radius for n in range(48)])
    theta = (edges[1:] + edges[:-1]) / 2
    return [float(2 * np.mean(profile * wave(k * theta))) for k in (2, 3, 4, 5) for wave in (np.cos, np.sin)]


if __name__ == "__main__":
    main()
