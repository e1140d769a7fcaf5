"""The translator that changes nothing: the baseline any other has to beat."""

from __future__ import annotations

from sklearn.base import BaseEstimator

from musclekit.image import Contrast, Domain, Image

__all__ = ["Identity"]


class Identity(BaseEstimator):
    """Return the image as it is.

    ``Translated(Identity(), segmenter)`` gives what ``segmenter`` gives.
    """

    contrasts: frozenset[Contrast] = frozenset(Contrast)

    @property
    def source(self) -> Domain | None:
        """None: it takes any domain."""
        return None

    @property
    def target(self) -> Domain | None:
        """None: the domain stays as it is."""
        return None

    def translate(self, image: Image) -> Image:
        """Return the same image."""
        return image
