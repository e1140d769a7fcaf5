from __future__ import annotations

import numpy as np

from musclekit.anatomy import body_mask, split_legs
from musclekit.image import Contrast, Grid, Image


def two_disks(gap: float, flip: bool = False) -> Image:
    y, x = np.mgrid[:128, :256]
    left = (y - 64) ** 2 + (x - 128 + 50 + gap / 2) ** 2 <= 50**2
    right = (y - 64) ** 2 + (x - 128 - 50 - gap / 2) ** 2 <= 50**2
    voxels = np.where(left | right, 50.0, -1000.0).astype(np.float32)
    grid = Grid.from_spacing((3, 128, 256), (3, 1, 1))
    if flip:
        affine = grid.affine.copy()
        affine[0, 2] = -1
        grid = Grid(grid.shape, affine)
    return Image(np.repeat(voxels[None], 3, axis=0), grid, Contrast.CT)


def test_sides_follow_the_affine() -> None:
    for flip in (False, True):
        image = two_disks(20, flip)
        right, left = split_legs(image, body_mask(image))
        assert (right.side, left.side) == ("right", "left")
        assert right.mask[..., :128].any() == flip
        assert not (right.mask & left.mask).any()
