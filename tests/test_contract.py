"""Every registered method keeps the contract: a new one is tested by being registered."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from musclekit import registry
from musclekit.errors import InputError, ModalityError, NotFittedError, ParameterError, VoxelError
from musclekit.image import Contrast, Image, LabelMap
from musclekit.labels import LabelSet, label_set
from musclekit.testing import check_refiner, check_segmenter, check_translator, example_cases, example_image
from tests.tiny_checkpoint import DOMAINS, tiny_checkpoint
from tests.tiny_segmenter import SMALL, tiny_segmenter


@cache
def _checkpoints() -> Path:
    """A folder with an untrained network for each direction and of each kind, gone with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="musclekit-contract-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for direction in DOMAINS:
        tiny_checkpoint(folder / f"{direction}.pt", direction)
    for network in SMALL:
        tiny_segmenter(folder / f"{network}.pt", network)
    tiny_segmenter(folder / "another.pt", "unet-2d", seed=1)
    return folder


# What a method needs besides its defaults.
NEEDS: dict[str, dict[str, Any]] = {
    "translated": {"translator": {"name": "identity"}, "segmenter": {"name": "threshold"}},
    "refined": {"segmenter": {"name": "threshold"}, "refiner": {"name": "largest-component"}},
    "histogram-match": {"template": example_image(Contrast.CT, seed=1)},
}


def needs(name: str) -> dict[str, Any]:
    """What a method needs, a checkpoint where it is a network."""
    if name == "ensemble":
        return {"checkpoints": [str(_checkpoints() / f"{member}.pt") for member in ("unet-2d", "another")]}
    trained = name in DOMAINS or name in SMALL
    return {"checkpoint": _checkpoints() / f"{name}.pt"} if trained else NEEDS.get(name, {})


# What a method that learns is fitted on: the label set of its examples.
LEARNS: dict[str, str] = {"appearance": "muscle", "spgc": "muscle", "multiatlas": "thigh-11"}


def ready(name: str, contrast: Contrast | None = None, **settings: Any) -> Any:
    """A method with what it needs, fitted if it learns."""
    method = registry.build(name, **{**needs(name), **settings})
    if name in LEARNS:
        method.fit(example_cases(LEARNS[name], contrast or _a_contrast(method)))
    return method


@pytest.mark.parametrize("name", registry.names("segmenter"))
def test_segmenters_keep_the_contract(name: str) -> None:
    check_segmenter(ready(name))


@pytest.mark.parametrize("name", ["tissue", "gmm", "threshold", "levelset", "graphcut", "appearance", "spgc"])
@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.FAT, Contrast.WATER])
def test_segmenters_find_muscle_in_mr(name: str, contrast: Contrast) -> None:
    method = ready(name, contrast)
    if contrast not in method.contrasts:
        pytest.skip(f"{name} does not take {contrast}")
    image = example_image(contrast)
    check_segmenter(method, image)
    labels = method.segment(image)
    muscle = labels.mask("compartment" if name == "levelset" else "muscle")
    share = muscle[image.grid.shape[0] // 2].mean()
    # Muscle is the ring between 0.2 and 0.78 of a radius of 0.42 sides: 0.315 of the square.
    assert 0.2 < share < 0.42


@pytest.mark.parametrize("name", registry.names("translator"))
def test_translators_keep_the_contract(name: str) -> None:
    check_translator(registry.build(name, **needs(name)))


@pytest.mark.parametrize("name", registry.names("refiner"))
def test_refiners_keep_the_contract(name: str) -> None:
    image = example_image(Contrast.CT)
    labels = registry.build("threshold").segment(image)
    check_refiner(registry.build(name, **needs(name)), labels, image)


class Plain(BaseEstimator):
    """A segmenter to break: everything inside half the range of values is muscle."""

    contrasts = frozenset({Contrast.CT})

    @property
    def label_set(self) -> LabelSet:
        return label_set("muscle")

    def fit(self, cases: object) -> Plain:
        return self

    def segment(self, image: Image) -> LabelMap:
        if image.contrast is not Contrast.CT:
            raise ModalityError("this method takes CT and nothing else")
        if float(np.ptp(image.voxels)) == 0:
            raise VoxelError("the image is constant, there is nothing to see")
        return LabelMap(image.voxels > 0, image.grid, self.label_set)


class Learner(Plain):
    """Learns how bright muscle is; says nothing unfitted."""

    def fit(self, cases: Any) -> Learner:
        if not cases:
            raise InputError("'learner' needs annotated cases to be fitted on")
        self.low_ = float(np.mean([case.image.voxels[case.reference.mask("muscle")].min() for case in cases]))
        return self

    def segment(self, image: Image) -> LabelMap:
        labels = super().segment(image)
        if not hasattr(self, "low_"):
            raise NotFittedError("'learner' learns from annotated cases: call fit(cases) first")
        return labels.with_voxels((image.voxels > self.low_).astype(np.uint8))


class Lenient(Learner):
    def fit(self, cases: Any) -> Learner:
        return super().fit(cases) if cases else self


class Forgetful(Plain):
    def segment(self, image: Image) -> LabelMap:
        self.calls = getattr(self, "calls", 0) + 1
        return LabelMap(image.voxels > 10 * self.calls, image.grid, self.label_set)


class Greedy(Plain):
    def segment(self, image: Image) -> LabelMap:
        return LabelMap(image.voxels > 0, image.grid, self.label_set)


class Shifted(Plain):
    def segment(self, image: Image) -> LabelMap:
        labels = super().segment(image)
        return LabelMap(labels.voxels[1:], image.grid.crop((1, 0, 0), image.grid.shape), self.label_set)


class Mutating(Plain):
    def segment(self, image: Image) -> LabelMap:
        base: Any = image.voxels.base
        base += 1
        return super().segment(image)


def test_kit_passes_a_plain_method() -> None:
    check_segmenter(Plain())


def test_kit_passes_a_method_that_learns_and_wants_it_to_refuse_nothing() -> None:
    cases = example_cases("muscle", Contrast.CT)
    check_segmenter(Learner().fit(cases))
    with pytest.raises(AssertionError, match="refuses to be fitted on nothing"):
        check_segmenter(Lenient().fit(cases))


def test_examples_share_the_muscle_among_the_labels_of_a_set() -> None:
    one, two, three = example_cases("thigh-11", Contrast.CT)
    assert one.reference is not None
    assert set(np.unique(one.reference.voxels)) == {0, *one.reference.label_set.ids}
    assert (one.side, two.side, three.side) == ("right", "left", "right")
    muscle = one.image.voxels[one.reference.voxels > 0]
    # Muscle is at 55 HU, with a noise of 10.
    assert 54 < muscle.mean() < 56
    assert muscle.std() < 11


@pytest.mark.parametrize(
    ("method", "clause"),
    [
        (Forgetful(), "the same labels twice"),
        (Greedy(), "constant image is refused"),
        (Mutating(), "leaves its input untouched"),
    ],
)
def test_kit_names_the_clause_that_is_broken(method: Plain, clause: str) -> None:
    with pytest.raises(AssertionError, match=clause):
        check_segmenter(method)


def test_kit_sees_a_moved_grid() -> None:
    image = example_image(Contrast.CT)
    with pytest.raises(AssertionError, match="grid of the image"):
        check_segmenter(Shifted(), image)


def numbers() -> list[tuple[str, str]]:
    """Every numeric parameter of every method."""
    return [
        (name, key)
        for name in registry.names()
        for key, default in registry.parameters(name).items()
        if isinstance(default, (int, float)) and not isinstance(default, bool)
    ]


@pytest.mark.filterwarnings("ignore:a leg of unknown side")
@pytest.mark.parametrize(("name", "key"), numbers())
@pytest.mark.parametrize("value", ["abc", None, [1, 2], float("nan"), float("inf"), True])
def test_a_parameter_that_is_no_number_is_refused(name: str, key: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=key):
        _use(ready(name, **{key: value}))


def _a_contrast(method: Any) -> Contrast:
    accepted = getattr(method, "contrasts", frozenset(Contrast))
    return Contrast.CT if Contrast.CT in accepted else Contrast.T1W


def _use(method: Any) -> None:
    image = example_image(_a_contrast(method), shape=(2, 48, 48))
    if hasattr(method, "segment"):
        method.segment(image)
    elif hasattr(method, "translate"):
        method.translate(image)
    else:
        method.refine(registry.build("threshold").segment(image), image)
