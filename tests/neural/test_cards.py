from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from musclekit.errors import CheckpointError, LabelError
from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.neural import networks
from musclekit.neural.cards import SegmenterCard, TranslatorCard
from musclekit.neural.checkpoint import load_checkpoint, read_card, read_tensors, save_checkpoint, write_tensors
from musclekit.neural.views import ViewSpec
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Window
from musclekit.schemas import check_schema

THIGH = label_set("thigh-4")
DECILES = (tuple(-0.9 + 0.1 * n for n in range(9)), tuple(-0.8 + 0.1 * n for n in range(9)))


def card(**changes: Any) -> SegmenterCard:
    given: dict[str, Any] = {
        "name": "my own",
        "network": {"name": "unet-2d", "parameters": {"in_channels": 3, "out_channels": 5, "width": 2}},
        "label_set": THIGH,
        "windows": {Contrast.CT: CT_WINDOW, Contrast.T1W: Window("percentile", 1, 99, inverted=True)},
        "view": ViewSpec("leg", 2.0, (64, 48)),
        "context": 1,
        "loss": {"dice": 1.0, "class_weights": [1.0, 2.0]},
        "schedule": {"epochs": 3, "steps": None},
        "augmentation": {"flip": True},
        "seed": 7,
        "training_subjects": ("a", "b"),
        "validation_subjects": ("c",),
        "data": "phantoms",
        "licence": "CC0",
        "deciles": {Contrast.CT: DECILES},
        "scores": {"validation_dice": 0.5},
        "limits": ("It is small.",),
        "weights_sha256": "0" * 64,
    }
    return SegmenterCard(**{**given, **changes})


def network_of(one: SegmenterCard) -> Any:
    return networks.build(one.network["name"], **one.network["parameters"])


def written(path: Path, one: SegmenterCard) -> Path:
    save_checkpoint(path, network_of(one), one)
    return path


def changed(path: Path, **entries: Any) -> Path:
    """Write the file anew with other entries in its card, hashed as if it had been meant so."""
    content = read_tensors(path)
    text = json.dumps({**json.loads(content["card"]), **entries})
    write_tensors(path, {**content, "card": text, "card_sha256": hashlib.sha256(text.encode()).hexdigest()})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, SegmenterCard)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "one",
    [
        card(),
        card(
            view=ViewSpec("femur", 2.0, (180, 128, 128), "bone"),
            network={"name": "unet-2.5d", "parameters": {"out_channels": 5, "fusion": "max"}},
            context=0,
        ),
        SegmenterCard(
            "least", {"name": "unet-2d", "parameters": {}}, THIGH, {Contrast.MR: MR_WINDOW}, ViewSpec(),
            weights_sha256="f" * 64,
        ),
        card(label_set=label_set("thigh-4-sided")),
    ],
)  # fmt: skip
def test_a_card_follows_its_schema_and_comes_back_equal(one: SegmenterCard) -> None:
    data = one.as_data()
    check_schema(data, "segmenter_card", "the card")
    assert SegmenterCard.from_data(data) == one
    through_text = json.loads(json.dumps(data))
    assert SegmenterCard.from_data(through_text) == one
    assert through_text == data


def test_a_card_knows_its_channels_and_contrasts() -> None:
    assert (card().in_channels, card().out_channels) == (3, 5)
    assert (card(context=0).in_channels, card(label_set=label_set("thigh-10")).out_channels) == (1, 11)
    assert card().contrasts == {Contrast.CT, Contrast.T1W}


def test_network_and_card_come_back_from_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "best.pt", card())
    network, found = load_checkpoint(path, SegmenterCard)
    assert replace(found, weights_sha256="0" * 64) == card()
    assert read_card(path, SegmenterCard) == found
    assert not network.training
    with pytest.raises(CheckpointError, match="a checkpoint of kind 'segmenter', not 'translator'"):
        load_checkpoint(path, TranslatorCard)


def test_a_set_whose_labels_were_changed_since_is_refused(tmp_path: Path) -> None:
    others = ["gracilis", "hamstrings", "sartorius", "quadriceps femoris"]
    with pytest.raises(
        LabelError,
        match="the label set 'thigh-4' of this musclekit has other labels than those that the network learnt: "
        "gracilis, hamstrings, sartorius, quadriceps femoris",
    ):
        SegmenterCard.from_data(card().as_data() | {"labels": others})
    path = changed(written(tmp_path / "best.pt", card()), labels=others)
    assert refusal(path).startswith("the label set 'thigh-4' of this musclekit has other labels than those that")
    assert refusal(changed(path, label_set="thigh-99")).startswith("unknown label set 'thigh-99'")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (
            {"network": {"name": "unet-2d", "parameters": {"in_channels": 3, "out_channels": 4, "width": 2}}},
            "the network of the card, unet-2d, does not give 5 classes, which 'thigh-4' and background are",
        ),
        ({"context": 0}, "the network of the card cannot be used: "),
        (
            {"network": {"name": "resnet-generator", "parameters": {"width": 2}}},
            "the network of the card cannot be used: ResNetGenerator does not segment",
        ),
        (
            {"network": {"name": "unet-9000", "parameters": {}}},
            "the network of the card cannot be used: unknown network 'unet-9000'",
        ),
        (
            {"network": {"name": "unet-2d", "parameters": {"in_channels": 3, "out_channels": 5, "width": 3}}},
            "the weights do not fit the network of the card: ",
        ),
    ],
)
def test_a_network_that_does_not_fit_its_card_is_refused(tmp_path: Path, entries: dict[str, Any], reason: str) -> None:
    assert refusal(changed(written(tmp_path / "best.pt", card()), **entries)).startswith(reason)


@pytest.mark.parametrize("name", networks.segmenters())
def test_the_network_of_a_card_is_tried_on_what_its_view_shows(name: str) -> None:
    femur = ViewSpec("femur", 4.0, (45, 40, 40))
    for view in (femur, ViewSpec("whole", 2.0, (10, 300))):
        one = card(network={"name": name, "parameters": {"out_channels": 5}}, view=view, context=0)
        with torch.device("meta"):
            assert one.why_not(network_of(one).eval()) == ""
            other = card(network={"name": name, "parameters": {"out_channels": 4}}, view=view, context=0)
            assert "does not give 5 classes" in other.why_not(network_of(other).eval())


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"view": {"kind": "whole", "spacing_mm": 0, "size": [64, 64], "z_range": "scan"}}, "at [view][spacing_mm]: 0"),
        ({"windows": {}}, "at [windows]: {} should be non-empty"),
        ({"context": -1}, "at [context]: -1 is less than the minimum of 0"),
        ({"deciles": {"ct": {"least": [0] * 8, "most": [0] * 9}}}, "at [deciles][ct][least]: "),
    ],
)
def test_a_card_that_breaks_its_schema_is_refused(tmp_path: Path, entries: dict[str, Any], reason: str) -> None:
    message = refusal(changed(written(tmp_path / "best.pt", card()), **entries))
    assert message.removeprefix("the card: ").startswith(reason)


def test_a_view_that_cannot_be_is_refused(tmp_path: Path) -> None:
    view = {"kind": "leg", "spacing_mm": 1.0, "size": [8, 8, 8], "z_range": "scan"}
    path = changed(written(tmp_path / "best.pt", card()), view=view)
    assert refusal(path) == "the size of a 'leg' view is 2 numbers (rows and columns), not (8, 8, 8)"
