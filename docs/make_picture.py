"""Remake docs/phantom.png, the picture of the README: ``python docs/make_picture.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Picture

from musclekit import Contrast, registry
from musclekit.phantom import Grade, make_case
from musclekit.report.montage import draw_slices

SEED = 8
GRADES: tuple[Grade, ...] = ("healthy", "severe")


def main() -> None:
    """Draw healthy above severe, MR beside CT, each bare and with the tissues found."""
    rows = []
    for grade in GRADES:
        panels = []
        for contrast in (Contrast.T1W, Contrast.CT):
            case = make_case(
                SEED, contrasts=(contrast,), grade=grade, legs="right", shape=(5, 320, 320), spacing=(10.0, 0.7, 0.7)
            )
            labels = registry.build("tissue").segment(case.image)
            bare = labels.with_voxels(np.zeros_like(labels.voxels))
            for shown in (bare, labels):
                panels.append(draw_slices(case.image, shown, [2], panel_px=360)[0].rgb)
        height = min(panel.shape[0] for panel in panels)
        rows.append(np.hstack([panel[:height] for panel in panels]))
    width = min(row.shape[1] for row in rows)
    picture = np.vstack([row[:, :width] for row in rows])
    Picture.fromarray(picture).save(Path(__file__).parent / "phantom.png", optimize=True)


if __name__ == "__main__":
    main()
