from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from musclekit import registry
from musclekit.compose import Refined, Translated
from musclekit.errors import CheckpointError, MissingFileError, ModalityError, ParameterError
from musclekit.image import Case, Contrast, Image
from musclekit.labels import label_set
from musclekit.neural.views import ViewSpec
from musclekit.phantom import make_case
from musclekit.protocols import ProbabilisticSegmenter, Segmenter, UncertainSegmenter
from musclekit.segmenters.network import EnsembleSegmenter, NetworkSegmenter
from musclekit.testing import example_image
from tests.tiny_checkpoint import tiny_checkpoint
from tests.tiny_segmenter import SMALL, tiny_segmenter


@pytest.fixture(scope="module")
def thighs() -> Case:
    """Two legs on CT."""
    return make_case(4, contrasts=(Contrast.CT,), shape=(3, 64, 96), reference="thigh-11")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_segmenter(tmp_path / "network.pt")


def test_it_gives_what_its_card_says(path: Path, thighs: Case) -> None:
    method = registry.build("bayesian-unet", checkpoint=path)
    assert isinstance(method, Segmenter)
    assert isinstance(method, ProbabilisticSegmenter)
    assert isinstance(method, UncertainSegmenter)
    assert method.label_set == label_set("thigh-11")
    assert method.contrasts == {Contrast.CT}
    labels = method.segment(thighs.image)
    assert labels.grid is thighs.image.grid
    probabilities = method.probabilities(thighs.image)
    np.testing.assert_allclose(probabilities.voxels.sum(axis=0), 1, atol=1e-5)
    assert method.fit([thighs]) is method
    twin = pickle.loads(pickle.dumps(clone(method)))
    np.testing.assert_array_equal(twin.segment(thighs.image).voxels, labels.voxels)


@pytest.mark.parametrize("name", SMALL)
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, name: str, thighs: Case) -> None:
    other = "unet-2d" if name != "unet-2d" else "fcn-8s"
    path = tiny_segmenter(tmp_path / "other.pt", other)
    with pytest.raises(CheckpointError) as caught:
        registry.build(name, checkpoint=path).segment(thighs.image)
    assert str(caught.value) == f"{path}: a checkpoint of '{other}', not of '{name}'"
    assert NetworkSegmenter(checkpoint=path).card.network["name"] == other


def test_a_translator_is_no_segmenter(tmp_path: Path, thighs: Case) -> None:
    path = tiny_checkpoint(tmp_path / "translator.pt")
    with pytest.raises(CheckpointError, match="a checkpoint of kind 'translator', not 'segmenter'"):
        NetworkSegmenter(checkpoint=path).segment(thighs.image)


def test_without_a_checkpoint_it_says_what_it_needs(thighs: Case) -> None:
    with pytest.raises(ParameterError, match="'bayesian-unet' needs a checkpoint: the file that training wrote"):
        registry.build("bayesian-unet").segment(thighs.image)
    with pytest.raises(MissingFileError, match=r"nowhere\.pt: no such file"):
        NetworkSegmenter(checkpoint="nowhere.pt").segment(thighs.image)


def test_a_contrast_it_does_not_know_is_refused(path: Path) -> None:
    with pytest.raises(ModalityError, match="method 'bayesian-unet' takes ct; this image is t1w"):
        registry.build("bayesian-unet", checkpoint=path).segment(example_image(Contrast.T1W))


def test_a_device_that_is_not_there_is_an_error(path: Path, thighs: Case) -> None:
    with pytest.raises(ParameterError, match="device 'cuda:9' is not here; there is: cpu"):
        NetworkSegmenter(checkpoint=path, device="cuda:9").segment(thighs.image)


def test_labels_of_another_musclekit_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch, thighs: Case) -> None:
    import musclekit.neural.cards as cards

    monkeypatch.setattr(cards, "label_set", lambda name: label_set("thigh-10"))
    with pytest.raises(CheckpointError, match="the label set 'thigh-10' of this musclekit has other labels"):
        NetworkSegmenter(checkpoint=path).segment(thighs.image)


def test_nobody_it_learnt_from_may_be_scored(path: Path) -> None:
    assert NetworkSegmenter(checkpoint=path).training_subjects_ == ("t1", "t2", "v1")


def test_sampled_it_tells_of_every_leg(path: Path, thighs: Case) -> None:
    method = NetworkSegmenter(checkpoint=path, samples=3, random_state=5)
    assert method.is_uncertain
    found = method.predict(thighs.image)
    muscles = label_set("thigh-11").names
    assert set(found.volume_ml) == {f"{name} {side}" for name in muscles for side in ("left", "right")}
    assert all(volume.shape == (3,) for volume in found.volume_ml.values())
    planes = thighs.image.grid.shape[0]
    assert all(area.shape == (3, planes) for area in found.csa_mm2.values())
    dz = thighs.image.grid.spacing[0]
    for name, areas in found.csa_mm2.items():
        np.testing.assert_allclose(areas.sum(axis=1) * dz / 1000, found.volume_ml[name])
    assert found.variance.min() >= 0
    assert found.entropy.max() <= np.log2(12) + 1e-3
    again = method.predict(thighs.image)
    np.testing.assert_array_equal(found.variance, again.variance)
    np.testing.assert_array_equal(found.labels.voxels, method.segment(thighs.image).voxels)
    other = clone(method).set_params(random_state=6).predict(thighs.image)
    assert not np.array_equal(found.variance, other.variance)
    np.testing.assert_allclose(found.mean.voxels.sum(axis=0), 1, atol=1e-5)


def test_without_dropout_there_is_nothing_to_sample(tmp_path: Path, thighs: Case) -> None:
    path = tiny_segmenter(tmp_path / "plain.pt", "unet-2d")
    method = NetworkSegmenter(checkpoint=path)
    assert not method.is_uncertain
    with pytest.raises(ParameterError, match="'tiny unet-2d' has no dropout to sample: leave samples out, or take an"):
        method.predict(thighs.image)


def test_what_is_made_of_it_is_as_uncertain(path: Path, thighs: Case) -> None:
    sampled = NetworkSegmenter(checkpoint=path, samples=2)
    translated = Translated(translator=registry.build("identity"), segmenter=sampled)
    refined = Refined(segmenter=sampled, refiner=registry.build("largest-component"))
    found = sampled.predict(thighs.image)
    for method in (translated, refined):
        assert isinstance(method, UncertainSegmenter)
        assert method.is_uncertain
        np.testing.assert_array_equal(method.predict(thighs.image).variance, found.variance)
    plain = Refined(segmenter=registry.build("threshold"), refiner=registry.build("largest-component"))
    assert not plain.is_uncertain
    assert not hasattr(plain, "predict")


def test_slices_it_does_not_know_can_be_left_out(path: Path, thighs: Case) -> None:
    method = NetworkSegmenter(checkpoint=path, largest=False)
    everywhere = method.segment(thighs.image).voxels
    one = clone(method).set_params(slices=[1, 1]).segment(thighs.image).voxels
    assert not one[[0, 2]].any()
    np.testing.assert_array_equal(one[1], everywhere[1])
    with pytest.raises(ParameterError, match="slices 1 to 3: the scan has slices 0 to 2"):
        clone(method).set_params(slices=[1, 3]).segment(thighs.image)
    with pytest.raises(ParameterError, match=r"slices are the first and the last one, as \[10, 40\], not 'all'"):
        clone(method).set_params(slices="all").segment(thighs.image)


def one_leg(side: str) -> Image:
    return make_case(4, contrasts=(Contrast.CT,), shape=(2, 64, 64), legs=side, reference="thigh-11").image  # type: ignore[arg-type]


def test_a_single_leg_is_mirrored_if_its_side_is_told(path: Path) -> None:
    method = NetworkSegmenter(checkpoint=path, largest=False)
    image = one_leg("left")
    with pytest.warns(UserWarning, match="a leg of unknown side was not mirrored"):
        as_it_is = method.segment(image)
    mirrored = clone(method).set_params(side="left").segment(image)
    right = clone(method).set_params(side="right").segment(image)
    np.testing.assert_array_equal(as_it_is.voxels, right.voxels)
    assert not np.array_equal(mirrored.voxels, right.voxels)


def test_an_ensemble_is_the_mean_of_its_networks(tmp_path: Path, thighs: Case) -> None:
    paths = [tiny_segmenter(tmp_path / f"{seed}.pt", "unet-2d", seed=seed) for seed in (0, 1)]
    ensemble = EnsembleSegmenter(checkpoints=[str(path) for path in paths])
    each = [NetworkSegmenter(checkpoint=path).probabilities(thighs.image).voxels for path in paths]
    np.testing.assert_allclose(ensemble.probabilities(thighs.image).voxels, np.mean(each, axis=0), atol=2e-3)
    found = ensemble.predict(thighs.image)
    assert ensemble.n_samples == 2
    assert ensemble.is_uncertain
    assert {len(volume) for volume in found.volume_ml.values()} == {2}
    assert ensemble.training_subjects_ == ("t1", "t2", "v1")
    pickle.loads(pickle.dumps(ensemble)).segment(thighs.image)


def test_an_ensemble_needs_two_networks_that_were_trained_alike(tmp_path: Path, thighs: Case) -> None:
    paths = [
        tiny_segmenter(tmp_path / "a.pt", "unet-2d"),
        tiny_segmenter(tmp_path / "b.pt", "unet-2d", view=ViewSpec("leg", 5.0, (64, 64))),
    ]
    with pytest.raises(ParameterError, match="an ensemble needs the checkpoints of two networks at least"):
        EnsembleSegmenter(checkpoints=[str(paths[0])]).segment(thighs.image)
    with pytest.raises(CheckpointError, match=re.escape(f"{paths[1]}: differs from {paths[0]} in view")):
        EnsembleSegmenter(checkpoints=[str(path) for path in paths]).segment(thighs.image)
