"""What a method must be able to do, as typing protocols and nothing else.

A method is also an estimator in scikit-learn's sense: see `musclekit.testing` for the whole contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

from musclekit.image import Assessment, Case, Contrast, Domain, Image, LabelMap, Prediction, ProbabilityMap
from musclekit.labels import LabelSet

__all__ = ["AssessedSegmenter", "ProbabilisticSegmenter", "Refiner", "Segmenter", "Translator", "UncertainSegmenter"]


@runtime_checkable
class Segmenter(Protocol):
    """Turns an image into labels on the same grid."""

    @property
    def label_set(self) -> LabelSet:
        """What the ids of its label maps mean."""

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """The contrasts it accepts; others are refused with a ModalityError."""

    def fit(self, cases: Sequence[Case]) -> Self:
        """Learn from cases. An unsupervised method checks them and returns itself; it never trains."""

    def segment(self, image: Image) -> LabelMap:
        """Label one image: pure, the same answer every time, the input untouched."""


@runtime_checkable
class ProbabilisticSegmenter(Segmenter, Protocol):
    """A segmenter that also gives the probability of each label."""

    def probabilities(self, image: Image) -> ProbabilityMap:
        """Probability of background and of each label."""


@runtime_checkable
class UncertainSegmenter(Segmenter, Protocol):
    """A segmenter that knows how far to trust itself; its probabilities come with the prediction."""

    @property
    def is_uncertain(self) -> bool:
        """Whether, as it is set, it answers several times; if not, `predict` takes longer than `segment`."""

    def predict(self, image: Image) -> Prediction:
        """Labels, mean probabilities, variance, and samples of volume and area."""


@runtime_checkable
class AssessedSegmenter(Segmenter, Protocol):
    """A segmenter that knows its limits: which slices show what it knows, and how well it found each structure."""

    def assess(self, image: Image) -> Assessment:
        """Labels, the slices that have any, and the Dice to be expected of each structure."""


@runtime_checkable
class Translator(Protocol):
    """Turns an image of one domain into one of another, on the same grid."""

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """The contrasts it accepts; others are refused with a ModalityError."""

    @property
    def source(self) -> Domain | None:
        """The domain it takes; None when it takes any."""

    @property
    def target(self) -> Domain | None:
        """The domain it gives; None when the domain stays as it is."""

    def translate(self, image: Image) -> Image:
        """Translate one image; the anatomy stays where it is."""


@runtime_checkable
class Refiner(Protocol):
    """Improves labels that another method made."""

    def refine(self, labels: LabelMap, image: Image) -> LabelMap:
        """Return better labels in the same set and on the same grid."""
