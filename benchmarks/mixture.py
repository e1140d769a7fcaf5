"""GMM of the body voxels of a CT, mask given: beside scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from benchmarks.timing import Row, ct, once, seconds, table
from musclekit.anatomy import body_mask
from musclekit.segmenters.mixture import fit_mixture


def rows() -> list[Row]:
    image, _ = ct(120)
    mask = body_mask(image)
    start = (-100.0, 50.0, 700.0)

    def ours() -> object:
        return fit_mixture(image.voxels, mask, initial="robust", means=start)

    def peer() -> object:
        model = GaussianMixture(
            3, means_init=np.array(start)[:, None], weights_init=np.full(3, 1 / 3), max_iter=200, tol=1e-4
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(image.voxels[mask][:, None])

    note = f"{int(mask.sum()) / 1e6:.1f} M voxels"
    return [
        Row("GMM, body voxels of CT 512x512x120", seconds(ours), 0.15, "scikit-learn GaussianMixture", once(peer), note)
    ]


if __name__ == "__main__":
    print(table(rows()))
