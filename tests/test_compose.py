from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone

from musclekit.compose import Refined, Translated, for_side
from musclekit.errors import ModalityError
from musclekit.image import Case, Contrast, Domain, Image, LabelMap
from musclekit.labels import LabelSet, label_set
from musclekit.memory import Memory, remembering
from musclekit.protocols import ProbabilisticSegmenter
from musclekit.registry import build
from musclekit.testing import example_image
from musclekit.translators import Identity


class Darken(BaseEstimator):
    """A translator from hard T1w to easy T1w: it halves the values."""

    contrasts = frozenset({Contrast.T1W})
    source = Domain(Contrast.T1W, "hard")
    target = Domain(Contrast.T1W, "easy")

    def translate(self, image: Image) -> Image:
        return image.with_voxels(image.voxels / 2, domain="easy")


class Recorder(BaseEstimator):
    """A segmenter that remembers what it was fitted on, and labels what is below 100."""

    contrasts = frozenset({Contrast.T1W})

    @property
    def label_set(self) -> LabelSet:
        return label_set("muscle")

    def fit(self, cases: Any) -> Recorder:
        self.cases_ = list(cases)
        return self

    def segment(self, image: Image) -> LabelMap:
        return LabelMap(image.voxels < 100, image.grid, self.label_set)


def hard(value: float = 150.0, domain: str = "hard") -> Image:
    image = example_image(Contrast.T1W, shape=(2, 16, 16))
    return image.with_voxels(np.full(image.grid.shape, value), domain=domain)


def test_identity_changes_nothing() -> None:
    image = example_image(Contrast.CT)
    alone = build("threshold").segment(image)
    fed = Translated(translator=Identity(), segmenter=build("threshold")).segment(image)
    assert np.array_equal(alone.voxels, fed.voxels)


def test_a_translation_is_made_once_whatever_the_segmenters_parameters() -> None:
    image = example_image(Contrast.T1W)
    plan: dict[str, Any] = {"name": "translated", "translator": {"name": "n4"}, "segmenter": {"name": "graphcut"}}
    with remembering(Memory()) as memory:
        for smoothness in (0.1, 0.2):
            build(**plan, translator__n_iterations=(2,), segmenter__smoothness=smoothness).translate(image)
    assert memory.computed["musclekit.compose._translation"] == 1


def test_the_translation_is_segmented_and_the_mask_lies_on_the_image() -> None:
    method = Translated(translator=Darken(), segmenter=Recorder())
    image = hard(150.0)
    labels = method.segment(image)
    assert labels.voxels.all()
    assert labels.grid is image.grid
    assert not method.segment(hard(250.0)).voxels.any()


def test_fit_translates_the_source_passes_the_target_and_keeps_references() -> None:
    reference = LabelMap(np.ones(hard().grid.shape, int), hard().grid, label_set("muscle"))
    cases = [
        Case("a", "s1", {Contrast.T1W: hard()}, reference=reference),
        Case("b", "s2", {Contrast.T1W: hard(50.0, domain="easy")}),
    ]
    method = Translated(translator=Darken(), segmenter=Recorder()).fit(cases)
    first, second = method.segmenter.cases_
    assert first.image.voxels.max() == 75.0
    assert first.reference is reference
    assert second.image.voxels.max() == 50.0
    assert cases[0].image.voxels.max() == 150.0


def test_fit_refuses_a_case_of_neither_domain() -> None:
    case = Case("odd one", "s1", {Contrast.T1W: hard(domain="medium")})
    with pytest.raises(ModalityError, match=r"case 'odd one' \(t1w, domain medium\) is neither"):
        Translated(translator=Darken(), segmenter=Recorder()).fit([case])


def test_segment_refuses_another_domain() -> None:
    with pytest.raises(ModalityError, match=r"starts from t1w \(hard\); this image is t1w \(medium\)"):
        Translated(translator=Darken(), segmenter=Recorder()).segment(hard(domain="medium"))


def test_an_image_of_the_target_is_segmented_as_it_is() -> None:
    easy = hard(150.0, domain="easy")
    method = Translated(translator=Darken(), segmenter=Recorder())
    assert method.translate(easy) is easy
    assert not method.segment(easy).voxels.any()


class ToCt(Darken):
    target = Domain(Contrast.CT)


def test_an_image_of_the_targets_contrast_is_refused() -> None:
    with pytest.raises(ModalityError, match=r"starts from t1w \(hard\); this image is ct"):
        Translated(translator=ToCt(), segmenter=Recorder()).translate(example_image(Contrast.CT))


def test_an_image_whose_domain_nobody_named_is_taken_for_one_of_the_source() -> None:
    image = example_image(Contrast.T1W, shape=(2, 16, 16))
    assert image.domain is None
    method = Translated(translator=Darken(), segmenter=Recorder())
    assert method.translate(image).domain == "easy"
    # What is learnt from is then what will be segmented: a translation.
    method.fit([Case("a", "s1", {Contrast.T1W: image})])
    assert method.segmenter.cases_[0].image.domain == "easy"


def test_a_segmenter_that_cannot_take_the_translation_says_so() -> None:
    image = example_image(Contrast.CT)
    with pytest.raises(ModalityError, match="the translator gives ct; the segmenter takes t1w"):
        Translated(translator=Identity(), segmenter=Recorder()).segment(image)
    assert Translated(translator=Identity(), segmenter=Recorder()).contrasts == {Contrast.T1W}


def test_probabilities_exist_only_where_the_segmenter_has_them() -> None:
    with_gmm = Translated(translator=Identity(), segmenter=build("gmm"))
    assert isinstance(with_gmm, ProbabilisticSegmenter)
    image = example_image(Contrast.T1W)
    assert np.allclose(with_gmm.probabilities(image).voxels, build("gmm").probabilities(image).voxels)
    assert not isinstance(Translated(translator=Identity(), segmenter=Recorder()), ProbabilisticSegmenter)


def test_refined_refines_what_was_segmented() -> None:
    image = example_image(Contrast.CT)
    voxels = image.voxels.copy()
    voxels[:, 2:4, 2:4] = 50.0  # a speck of muscle in the air
    speckled = image.with_voxels(voxels)
    rough = build("threshold").segment(speckled)
    method = Refined(segmenter=build("threshold"), refiner=build("largest-component"))
    clean = method.segment(speckled)
    assert clean.voxels.sum() <= rough.voxels.sum()
    assert not clean.voxels[:, 2:4, 2:4].any()
    assert method.label_set == rough.label_set
    assert method.contrasts == build("threshold").contrasts


def test_parameters_nest_and_clone() -> None:
    method = Translated(translator=build("n4"), segmenter=build("threshold"))
    method.set_params(translator__spline_mm=70.0)
    assert clone(method).get_params()["translator__spline_mm"] == 70.0


class OneLeg(Recorder):
    """A segmenter that has to be told which leg it sees."""

    def __init__(self, *, side: str | None = None) -> None:
        self.side = side


def test_every_part_that_asks_for_a_side_is_told_it_and_the_method_stays_as_it_is() -> None:
    method = Refined(
        segmenter=Translated(translator=Identity(), segmenter=OneLeg()), refiner=build("largest-component")
    ).fit([Case("a", "a", {Contrast.T1W: hard()})])
    told = for_side(method, "left")
    assert told.get_params()["segmenter__segmenter__side"] == "left"
    assert method.get_params()["segmenter__segmenter__side"] is None
    assert [case.id for case in told.segmenter.segmenter.cases_] == ["a"]


def test_a_side_that_was_given_is_kept_and_nothing_is_told_where_none_is_known() -> None:
    given, left_open = OneLeg(side="right"), OneLeg()
    assert for_side(given, "left") is given
    assert for_side(left_open, None) is left_open
    assert for_side(build("threshold"), "left").get_params() == build("threshold").get_params()
