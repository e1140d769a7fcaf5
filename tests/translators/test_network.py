from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from musclekit import registry
from musclekit.errors import (
    CheckpointError,
    FormatError,
    LabelError,
    MissingFileError,
    ModalityError,
    ParameterError,
    UnsafeError,
)
from musclekit.image import Contrast, Domain, Image
from musclekit.phantom import make_case
from musclekit.testing import example_image
from musclekit.translators.network import NetworkTranslator
from musclekit.translators.safety import compartment_of
from tests.tiny_checkpoint import DOMAINS, tiny_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "best.pt")


def t1w(domain: str | None = None) -> Image:
    image = example_image(Contrast.T1W, shape=(2, 64, 64), spacing=(5, 3, 3))
    return image.with_voxels(image.voxels, domain=domain)


def test_it_leads_where_its_card_says(path: Path) -> None:
    translator = registry.build("hard-to-easy", checkpoint=path)
    assert translator.source == Domain(Contrast.T1W, "hard")
    assert translator.target == Domain(Contrast.T1W, "easy")
    assert translator.contrasts == {Contrast.T1W}
    image = t1w("hard")
    fake = translator.translate(image)
    assert fake.grid is image.grid
    assert (fake.contrast, fake.domain) == (Contrast.T1W, "easy")
    assert fake.voxels.dtype == np.float32
    assert not np.array_equal(fake.voxels, image.voxels)


def test_a_target_without_a_grade_keeps_the_domain_of_the_image(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "ct.pt", "mr-to-ct")
    fake = NetworkTranslator(checkpoint=path).translate(t1w("hard"))
    assert (fake.contrast, fake.domain) == (Contrast.CT, "hard")


@pytest.mark.parametrize("name", DOMAINS)
def test_a_checkpoint_of_another_direction_is_refused(tmp_path: Path, name: str) -> None:
    for other in set(DOMAINS) - {name}:
        path = tiny_checkpoint(tmp_path / f"{other}.pt", other)
        with pytest.raises(CheckpointError) as caught:
            registry.build(name, checkpoint=path).translate(t1w())
        assert str(caught.value) == f"{path}: a checkpoint of '{other}', not of '{name}'"
        assert NetworkTranslator(checkpoint=path).card.direction == other


def test_without_a_checkpoint_it_says_what_it_needs() -> None:
    with pytest.raises(ParameterError, match="'hard-to-easy' needs a checkpoint: the file that training wrote"):
        registry.build("hard-to-easy").translate(t1w())
    with pytest.raises(ParameterError, match="'mr-to-ct' needs a checkpoint"):
        registry.build("translated", translator={"name": "mr-to-ct"}, segmenter={"name": "gmm"}).segment(t1w())


def test_files_that_cannot_be_used_are_named(path: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.pt"
    with pytest.raises(MissingFileError, match=r"none\.pt: no such file"):
        registry.build("hard-to-easy", checkpoint=missing).translate(t1w())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"best\.pt: no checkpoint, or one that is cut short"):
        registry.build("hard-to-easy", checkpoint=str(path)).translate(t1w())


def test_a_file_that_is_replaced_is_read_again(path: Path) -> None:
    translator = registry.build("hard-to-easy", checkpoint=path)
    assert translator.card.name == "tiny hard-to-easy"
    tiny_checkpoint(path, name="another one")
    assert translator.card.name == "another one"


def test_another_contrast_is_refused(path: Path) -> None:
    with pytest.raises(ModalityError, match="method 'hard-to-easy' takes t1w; this image is ct"):
        registry.build("hard-to-easy", checkpoint=path).translate(example_image(Contrast.CT))


def test_a_device_that_is_not_there_is_never_replaced_by_the_processor(path: Path) -> None:
    translator = registry.build("hard-to-easy", checkpoint=path, device="cuda:77")
    with pytest.raises(ParameterError, match=r"device 'cuda:77' is not here; there is: cpu"):
        translator.translate(t1w())


def test_strict_refuses_what_is_not_safe(tmp_path: Path) -> None:
    # What a network that has learnt nothing gives is no CT.
    path = tiny_checkpoint(tmp_path / "ct.pt", "mr-to-ct")
    relaxed = registry.build("mr-to-ct", checkpoint=path)
    relaxed.translate(t1w())
    with pytest.raises(UnsafeError, match="the translation is refused: edge correlation is 0"):
        relaxed.set_params(strict=True).translate(t1w())


def test_settings_that_scores_rest_on_are_asked_for(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "best.pt", meant_with={"within": "tissue"})
    image = make_case(3, shape=(2, 64, 64), grade="severe", legs="left").image
    with pytest.warns(UserWarning, match="'tiny hard-to-easy' is meant with within = 'tissue', which its scores rest"):
        registry.build("hard-to-easy", checkpoint=path).translate(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.build("hard-to-easy", checkpoint=path, within="tissue").translate(image)


def test_it_is_described_by_its_name_and_built_again(path: Path) -> None:
    for name in DOMAINS:
        described = registry.describe(registry.build(name, checkpoint=path, batch=3))
        assert described == {"name": name, "checkpoint": str(path), "device": "cpu", "batch": 3, "per_leg": None,
                             "within": None, "strict": False}  # fmt: skip
        assert registry.describe(registry.build(**described)) == described
        with pytest.raises(ParameterError, match=f"method '{name}' has no parameter 'direction'"):
            registry.build(name, direction="mr-to-ct")
    with pytest.raises(ParameterError, match="NetworkTranslator is registered with one of these settings only: direct"):
        registry.describe(NetworkTranslator(checkpoint=path))


def test_copies_give_the_same_image(path: Path) -> None:
    translator = registry.build("hard-to-easy", checkpoint=path)
    expected = translator.translate(t1w()).voxels
    for copy in (clone(translator), pickle.loads(pickle.dumps(translator))):
        np.testing.assert_array_equal(copy.translate(t1w()).voxels, expected)


def test_a_translator_feeds_a_segmenter(path: Path) -> None:
    method = registry.build("translated", translator={"name": "hard-to-easy", "checkpoint": path}, segmenter="tissue")
    image = t1w("hard")
    labels = method.segment(image)
    assert labels.grid is image.grid


def test_outside_the_compartment_an_image_stays_as_it_is(path: Path) -> None:
    image = make_case(3, shape=(2, 64, 64), grade="severe", legs="left").image
    whole = registry.build("hard-to-easy", checkpoint=path).translate(image)
    guarded = registry.build("hard-to-easy", checkpoint=path, within="tissue").translate(image)
    compartment = compartment_of(registry.build("tissue").segment(image))
    assert compartment.any()
    assert np.array_equal(guarded.voxels[compartment], whole.voxels[compartment])
    assert np.array_equal(guarded.voxels[~compartment], image.voxels[~compartment])
    assert not np.array_equal(whole.voxels[~compartment], image.voxels[~compartment])


def test_grey_values_of_two_scales_are_not_mixed(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "ct.pt", "mr-to-ct")
    with pytest.raises(ParameterError, match=r"within leaves the image as it is .* leave within out"):
        registry.build("mr-to-ct", checkpoint=path, within="tissue").translate(t1w())


def test_within_has_to_be_a_segmenter(path: Path) -> None:
    with pytest.raises(ParameterError, match="within of 'hard-to-easy' must be a segmenter, one of: tissue"):
        registry.build("hard-to-easy", checkpoint=path, within="n4")
    with pytest.raises(LabelError, match="no map from 'muscle' to 'compartment'"):
        registry.build("hard-to-easy", checkpoint=path, within="gmm").translate(t1w())
