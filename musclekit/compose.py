"""Methods made of methods: any translator feeds any segmenter, any refiner follows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Self, TypeVar, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if

from musclekit.errors import ModalityError
from musclekit.image import Assessment, Case, Contrast, Image, LabelMap, Prediction, ProbabilityMap
from musclekit.labels import LabelSet, Side
from musclekit.memory import remembered
from musclekit.protocols import (
    AssessedSegmenter,
    ProbabilisticSegmenter,
    Refiner,
    Segmenter,
    Translator,
    UncertainSegmenter,
)

__all__ = ["Refined", "Translated", "for_side"]

Method = TypeVar("Method", bound=Segmenter)


@remembered()
def _translation(translator: Translator, image: Image) -> Image:
    """Translate: the same image whatever the parameters of the segmenter behind it, so a search does it once."""
    return translator.translate(image)


def _segmenter_is_probabilistic(method: Translated) -> bool:
    return isinstance(method.segmenter, ProbabilisticSegmenter)


def _segmenter_predicts(method: Translated | Refined) -> bool:
    return isinstance(method.segmenter, UncertainSegmenter)


def _segmenter_assesses(method: Translated | Refined) -> bool:
    return isinstance(method.segmenter, AssessedSegmenter)


class Translated(BaseEstimator):
    """Segment the translation of an image; the mask belongs to the image itself, unchanged.

    Parameters
    ----------
    translator : Translator
        Turns what is hard to segment into what is easy.
    segmenter : Segmenter
        Segments the translation.

    Notes
    -----
    Gadermayr et al. (hard-to-easy translation), section 2: the mask found on the fake image is transferred to the
    original without a change. Grey values (HU, fat fraction) are always measured on the original.
    """

    def __init__(self, *, translator: Translator, segmenter: Segmenter) -> None:
        self.translator = translator
        self.segmenter = segmenter

    @property
    def label_set(self) -> LabelSet:
        """The segmenter's."""
        return self.segmenter.label_set

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """The contrasts that the translator takes and that lead to one the segmenter takes."""
        taken = self.translator.contrasts
        if self.translator.target is None:
            return taken & self.segmenter.contrasts
        return taken if self.translator.target.contrast in self.segmenter.contrasts else frozenset()

    def translate(self, image: Image) -> Image:
        """Return what the segmenter is given for an image.

        An image of the right contrast whose domain nobody has named is taken for one that the translator starts from.
        One of that contrast that is known to be of the domain it leads to is passed on as it is.

        Raises
        ------
        ModalityError
            If the image is known to belong to neither of the translator's domains, or the segmenter cannot take what
            the translator gives.
        """
        source, target = self.translator.source, self.translator.target
        if source is not None and not source.may_hold(image):
            if target is not None and target.contrast is source.contrast and target.holds(image):
                return image
            has = f"{image.contrast}{f' ({image.domain})' if image.domain else ''}"
            wants = f"{source.contrast}{f' ({source.grade})' if source.grade else ''}"
            raise ModalityError(f"the translator starts from {wants}; this image is {has}")
        fake = _translation(self.translator, image)
        if fake.contrast not in self.segmenter.contrasts:
            takes = ", ".join(sorted(self.segmenter.contrasts))
            raise ModalityError(f"the translator gives {fake.contrast}; the segmenter takes {takes}")
        return fake

    def fit(self, cases: Sequence[Case]) -> Self:
        """Fit the segmenter on cases of its own domain.

        Cases of the translator's source are translated, those of its target are passed on as they are; what nobody
        has named is translated, as it is when it is segmented. References are never touched.

        Raises
        ------
        ModalityError
            If a case belongs to neither.
        """
        source, target = self.translator.source, self.translator.target
        prepared = []
        for case in cases:
            image = case.image
            is_source = source is None or source.holds(image)
            if not is_source and target is not None and target.holds(image):
                prepared.append(case)
            elif source is None or source.may_hold(image):
                fake = self.translate(image)
                prepared.append(replace(case, images={fake.contrast: fake}))
            else:
                raise ModalityError(
                    f"case '{case.id}' ({image.contrast}, domain {image.domain or 'unknown'}) is neither of the "
                    "translator's source nor of its target"
                )
        self.segmenter.fit(prepared)
        return self

    def segment(self, image: Image) -> LabelMap:
        """Segment the translation; the labels lie on the grid of the image given."""
        labels = self.segmenter.segment(self.translate(image))
        return replace(labels, grid=image.grid)

    @available_if(_segmenter_is_probabilistic)  # type: ignore[untyped-decorator]
    def probabilities(self, image: Image) -> ProbabilityMap:
        """Return the probabilities of the translation; there only where the segmenter gives any."""
        segmenter = cast(ProbabilisticSegmenter, self.segmenter)
        return replace(segmenter.probabilities(self.translate(image)), grid=image.grid)

    @property
    def is_uncertain(self) -> bool:
        """The segmenter's; False where it never answers several times."""
        return isinstance(self.segmenter, UncertainSegmenter) and self.segmenter.is_uncertain

    @available_if(_segmenter_predicts)  # type: ignore[untyped-decorator]
    def predict(self, image: Image) -> Prediction:
        """Return what the segmenter says of the translation; there only where it can answer several times."""
        found = cast(UncertainSegmenter, self.segmenter).predict(self.translate(image))
        return replace(
            found,
            labels=replace(found.labels, grid=image.grid),
            mean_probabilities=lambda: replace(found.mean, grid=image.grid),
        )

    @available_if(_segmenter_assesses)  # type: ignore[untyped-decorator]
    def assess(self, image: Image) -> Assessment:
        """Return what the segmenter says of the translation; there only where it knows its limits."""
        found = cast(AssessedSegmenter, self.segmenter).assess(self.translate(image))
        return replace(found, labels=replace(found.labels, grid=image.grid))


class Refined(BaseEstimator):
    """Segment, then refine.

    Parameters
    ----------
    segmenter : Segmenter
        Makes the labels.
    refiner : Refiner
        Improves them, looking at the image.
    """

    def __init__(self, *, segmenter: Segmenter, refiner: Refiner) -> None:
        self.segmenter = segmenter
        self.refiner = refiner

    @property
    def label_set(self) -> LabelSet:
        """The segmenter's."""
        return self.segmenter.label_set

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """The segmenter's."""
        return self.segmenter.contrasts

    def fit(self, cases: Sequence[Case]) -> Self:
        """Fit the segmenter."""
        self.segmenter.fit(cases)
        return self

    def segment(self, image: Image) -> LabelMap:
        """Return the refined labels."""
        return self.refiner.refine(self.segmenter.segment(image), image)

    @property
    def is_uncertain(self) -> bool:
        """The segmenter's; False where it never answers several times."""
        return isinstance(self.segmenter, UncertainSegmenter) and self.segmenter.is_uncertain

    @available_if(_segmenter_predicts)  # type: ignore[untyped-decorator]
    def predict(self, image: Image) -> Prediction:
        """Return what the segmenter says, its labels refined; there only where it can answer several times."""
        found = cast(UncertainSegmenter, self.segmenter).predict(image)
        return replace(found, labels=self.refiner.refine(found.labels, image))

    @available_if(_segmenter_assesses)  # type: ignore[untyped-decorator]
    def assess(self, image: Image) -> Assessment:
        """Return what the segmenter says, its labels refined; there only where it knows its limits.

        Slices that are not accepted stay without labels.
        """
        found = cast(AssessedSegmenter, self.segmenter).assess(image)
        refined = self.refiner.refine(found.labels, image)
        kept = np.where(found.accepted[:, None, None], refined.voxels, 0)
        return replace(found, labels=refined.with_voxels(kept))


def for_side(method: Method, side: Side | None) -> Method:
    """Return a method told which leg a scan of one leg shows.

    Parameters
    ----------
    method : Segmenter
        It stays as it is.
    side : {"left", "right"} or None
        None where it is not known, or the scan shows both.

    Returns
    -------
    Segmenter
        A copy in which every parameter ``side`` that was left open, of the method or of a part of it, is set; the
        method itself where there is none.
    """
    if side is None or not isinstance(method, BaseEstimator):
        return method
    given = method.get_params()
    left_open = [name for name, value in given.items() if name.rpartition("__")[2] == "side" and value is None]
    if not left_open:
        return method
    # Not a clone, which would forget what was learnt.
    told = copy.deepcopy(method)
    told.set_params(**dict.fromkeys(left_open, side))
    return told
