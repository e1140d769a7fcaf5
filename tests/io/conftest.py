"""Small files of every format, made on the spot."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

#: All 48 ways in which the axes of a file can lie along those of the body: (permutation, signs).
AXIS_ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def ordered_affine(
    order: tuple[int, ...],
    signs: tuple[int, ...],
    spacing: tuple[float, ...] = (0.8, 1.1, 3.0),
    origin: tuple[float, ...] = (-80.5, 33.25, -410.0),
    rotation: np.ndarray | None = None,
) -> np.ndarray:
    """File axis n runs along world axis order[n], with the sign and spacing of n; then everything is rotated."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    if rotation is not None:
        affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = origin
    return affine


def small_rotation(rng: np.random.Generator, degrees: float = 25) -> np.ndarray:
    """Rotation about a random axis by up to so many degrees (Rodrigues' formula)."""
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.radians(rng.uniform(-degrees, degrees))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def damaged_nifti(path: Path, voxels: np.ndarray, edit: Callable[[Any], None]) -> Path:
    """Write a NIfTI file whose header was edited after nibabel, which would mend it, was done with it."""
    header = nib.Nifti1Image(voxels, np.diag([0.9, 0.8, 3, 1.0])).header
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header["scl_slope"], header["scl_inter"] = 1, 0
    edit(header)
    content = header.binaryblock + bytes(4) + voxels.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


@pytest.fixture
def ct_voxels() -> np.ndarray:
    """Air, fat and muscle, in file order (i, j, k), int16."""
    rng = np.random.default_rng(0)
    voxels = rng.choice([-1000, -100, 50], size=(7, 6, 5)).astype(np.int16)
    return voxels + np.arange(voxels.size, dtype=np.int16).reshape(voxels.shape) % 17
