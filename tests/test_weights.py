"""What ships is small, says what it is, holds its rule, and works offline by its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from musclekit import registry
from musclekit.errors import MissingFileError, ParameterError
from musclekit.image import Contrast
from musclekit.neural.cards import SegmenterCard, TranslatorCard
from musclekit.neural.checkpoint import load_checkpoint
from musclekit.phantom import make_case
from musclekit.schemas import check_schema
from musclekit.testing import example_image
from musclekit.weights import checkpoint_path, shipped

NAMES = sorted(name for name in shipped() if name.startswith("hard-to-easy"))
SEGMENTERS = sorted(set(shipped()) - set(NAMES))


def test_they_are_small_together() -> None:
    assert sum(weights.path.stat().st_size for weights in shipped().values()) < 30e6


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_small_and_its_card_stands_beside_it(name: str) -> None:
    weights = shipped()[name]
    assert weights.path.stat().st_size < 10e6
    check_schema(weights.card, "translator_card", "the card")
    _, card = load_checkpoint(weights.path, TranslatorCard)
    assert weights.card == json.loads(json.dumps(card.as_data()))
    assert card.name == name
    assert name.startswith(card.direction)
    assert card.data
    assert card.licence
    assert card.scores
    assert card.limits


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenters_card_stands_beside_it_and_says_whom_it_learnt_from(name: str) -> None:
    weights = shipped()[name]
    assert weights.path.stat().st_size < 12e6
    check_schema(weights.card, "segmenter_card", "the card")
    _, card = load_checkpoint(weights.path, SegmenterCard)
    assert weights.card == json.loads(json.dumps(card.as_data()))
    assert card.name == name
    assert name.startswith("thigh")
    assert card.data
    assert card.licence
    assert card.scores
    assert card.limits
    known = ("huashan-", "helsinki-", "myosegmentum-", "digital-")
    assert all(person.startswith(known) for person in (*card.training_subjects, *card.validation_subjects))
    # The person whose images it is checked on.
    assert "huashan-003" not in (*card.training_subjects, *card.validation_subjects)


@pytest.mark.parametrize("name", NAMES)
def test_its_card_holds_the_rule(name: str) -> None:
    """That of docs/results_translation.md: what no baseline reaches, and a compartment that stays where it is."""
    scores = shipped()[name].card["scores"]
    assert all(scores[f"gain_over_{baseline}"][1] > 0 for baseline in ("identity", "n4", "histogram-match"))
    assert scores["boundary_moved_severe"] < 0.02
    assert scores["dice_gmm_easy_change"] >= -0.01


@pytest.mark.parametrize("name", NAMES)
def test_nobody_elses_subjects_are_taken_for_those_it_learnt_from(name: str) -> None:
    for subjects in shipped()[name].card["training_subjects"].values():
        assert all(subject.startswith(("phantom-", "STS_")) for subject in subjects)


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_a_severe_phantom_easier_for_the_mixture(name: str) -> None:
    contrast = Contrast(shipped()[name].card["source"]["contrast"])
    case = make_case(5, contrasts=(contrast,), grade="severe", legs="left", shape=(3, 128, 128), reference="muscle")
    assert case.reference is not None
    muscle = case.reference.mask("muscle")

    def dice(image_segmenter: object) -> float:
        found = image_segmenter.segment(case.image).mask("muscle")  # type: ignore[attr-defined]
        return float(2 * np.count_nonzero(found & muscle) / (np.count_nonzero(found) + np.count_nonzero(muscle)))

    mixture = {"name": "gmm", "per": "slice", "initial": "robust"}
    translator = {"name": "hard-to-easy", "checkpoint": name, "within": "tissue"}
    plain = dice(registry.build(**mixture))
    assert dice(registry.build("translated", translator=translator, segmenter=mixture)) > plain + 0.05


def test_a_path_is_a_path_and_a_name_is_a_file_of_the_package(tmp_path: Path) -> None:
    assert checkpoint_path(tmp_path / "best.pt") == tmp_path / "best.pt"
    assert checkpoint_path("runs/best.pt") == Path("runs/best.pt")
    for name, weights in shipped().items():
        assert checkpoint_path(name) == weights.path
        assert checkpoint_path(Path(name)) == Path(name)


def test_a_name_that_does_not_ship_is_no_file() -> None:
    with pytest.raises(MissingFileError, match="hard-to-easy-ct: no such file"):
        registry.build("hard-to-easy", checkpoint="hard-to-easy-ct").translate(example_image(Contrast.T1W))


def test_what_ships_is_named_where_a_checkpoint_is_missing() -> None:
    with pytest.raises(ParameterError) as caught:
        registry.build("hard-to-easy").translate(example_image(Contrast.T1W))
    assert all(name in str(caught.value) for name in NAMES)
