"""Histogram matching as a translator: the grey values of a scan are bent until they are spread like a template's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from musclekit.anatomy import body_mask
from musclekit.checks import check_contrast, check_number, check_voxels
from musclekit.errors import ModalityError, ParameterError
from musclekit.image import Contrast, Domain, Image
from musclekit.io import read

__all__ = ["HistogramMatch", "body_quantiles"]


def body_quantiles(image: Image, n_quantiles: int) -> NDArray[np.float64]:
    """Return evenly spaced quantiles, minimum and maximum included, of the grey values inside the body."""
    values = image.voxels[body_mask(image)]
    quantiles: NDArray[np.float64] = np.quantile(values, np.linspace(0, 1, n_quantiles)).astype(np.float64)
    return quantiles


class HistogramMatch(BaseEstimator):
    """Give a scan the histogram of a template, inside the body.

    A monotone, piecewise linear change of grey values: it moves no anatomy, and it can tell no infiltrated muscle
    from fat that the scan itself does not tell apart. A trained translator has to beat it.

    Parameters
    ----------
    template : Image or str or Path
        A scan of the domain to reach, or its file; it must have the contrast of the scans to be translated.
    n_quantiles : int
        Points of the histogram that are matched.

    References
    ----------
    Nyul and Udupa, On standardizing the MR image intensity scale, Magn Reson Med 42 (1999). There the landmarks are
    learnt from several scans; here they are those of one.
    """

    contrasts: frozenset[Contrast] = frozenset(Contrast)

    def __init__(self, *, template: Image | str | Path | None = None, n_quantiles: int = 101) -> None:
        self.template = template
        self.n_quantiles = n_quantiles

    @property
    def source(self) -> Domain | None:
        """None: it takes any domain of the template's contrast."""
        return None

    @property
    def target(self) -> Domain | None:
        """None: the contrast stays, and the population is the template's, whatever that is called."""
        return None

    def translate(self, image: Image) -> Image:
        """Return the image with the template's histogram; outside the body the end segments are carried on.

        Raises
        ------
        ParameterError
            If there is no template, or fewer than two quantiles.
        ModalityError
            If template and image differ in contrast.
        """
        if self.template is None:
            raise ParameterError("histogram-match needs a template: a scan whose histogram is to be reached")
        check_number("n_quantiles", self.n_quantiles, least=2, most=1 << 20, whole=True)
        check_contrast(image, self.contrasts, "histogram-match")
        check_voxels(image)
        template = (
            self.template if isinstance(self.template, Image) else read(Path(self.template), contrast=image.contrast)
        )
        if template.contrast is not image.contrast:
            raise ModalityError(f"the template is {template.contrast}, the image {image.contrast}")
        # Equal quantiles (a flat stretch of the histogram) would make the map ambiguous: one of them is kept.
        before, first = np.unique(body_quantiles(image, self.n_quantiles), return_index=True)
        after = body_quantiles(template, self.n_quantiles)[first]
        matched = np.interp(image.voxels, before, after)
        below, above = image.voxels < before[0], image.voxels > before[-1]
        matched[below] = after[0] + (image.voxels[below] - before[0])
        matched[above] = after[-1] + (image.voxels[above] - before[-1])
        return image.with_voxels(matched)
