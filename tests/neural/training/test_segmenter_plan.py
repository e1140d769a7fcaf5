from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from musclekit.errors import FormatError, InputError, MissingFileError, ParameterError, SchemaError, UnknownNameError
from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.neural import networks
from musclekit.neural.augmentation import Augmentation
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.training.segmenter_plan import (
    SegmenterPlan,
    SegmenterSchedule,
    check_segmenter_plan,
    read_segmenter_plan,
)
from musclekit.neural.views import ViewSpec
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Window
from musclekit.schemas import check_schema
from tests.neural.training.labelled_examples import TINY, tiny

LEAST = """
kind = "train"
task = "segment"
labels = "thigh-4"
contrasts = ["ct"]
network = { name = "unet-2d" }
"""
FEMUR = """
kind = "train"
task = "segment"
labels = "thigh-10"
contrasts = ["ct"]
network = { name = "unet-2.5d" }
view = { kind = "femur" }
"""
FULL = SegmenterPlan(
    labels=label_set("thigh-4"),
    contrasts=(Contrast.CT, Contrast.T1W),
    network={"name": "unet-3d", "width": 4, "norm": "instance"},
    window=Window("percentile", 1, 99),
    view=ViewSpec("leg", 2.0, (64, 64)),
    block=(16, 32, 32),
    unlabelled_is_background=True,
    loss=SegmentationLoss(0.5, 2.0, (1, 10, 1, 1, 10), "weights", dice_background=False),
    schedule=SegmenterSchedule(7, 3, 2, "adamw", 1e-4, 0.01, "inverse-time", 0.1, 2),
    augmentation=Augmentation(10, 0.35, 22.5, 0.25, True),
    seed=3,
    cases=Path("cases/manifest.csv"),
    split="train",
    validation_split="val",
    precision="bfloat16",
    channels_last=True,
    sheet_every=0,
    name="my own",
    data="phantoms",
    licence="CC0",
    limits=("It is small.",),
)


def read(tmp_path: Path, text: str) -> SegmenterPlan:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return read_segmenter_plan(path)


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    plan = read(tmp_path, LEAST)
    assert plan == SegmenterPlan.from_data(tomllib.loads(LEAST))
    assert plan.labels == label_set("thigh-4")
    assert plan.view == ViewSpec("whole", 1.5, (256, 256))
    assert plan.windows == {Contrast.CT: CT_WINDOW}
    assert plan.network_parameters == {"in_channels": 1, "out_channels": 5}
    assert (plan.schedule.epochs, plan.schedule.batch, plan.schedule.decay) == (100, 8, "polynomial")
    assert (plan.loss, plan.augmentation.moves, plan.validation_share) == (SegmentationLoss(), False, 0)


def test_windows_follow_the_contrast_unless_one_is_given() -> None:
    plan = tiny(contrasts=(Contrast.CT, Contrast.WATER))
    assert plan.windows == {Contrast.CT: CT_WINDOW, Contrast.WATER: MR_WINDOW}
    own = Window("fixed", -100, 250)
    assert replace(plan, window=own).windows == {Contrast.CT: own, Contrast.WATER: own}


def test_the_view_of_a_femur_has_the_size_of_the_paper(tmp_path: Path) -> None:
    plan = read(tmp_path, FEMUR)
    assert plan.view == ViewSpec("femur", 2.0, (180, 128, 128))
    network = plan.build()
    assert isinstance(network, networks.PlaneUNets)
    assert (plan.sample_kind(network), plan.sample_size(network)) == ("planes", (180, 128, 128))


@pytest.mark.parametrize("plan", [TINY, FULL, SegmenterPlan.from_data(tomllib.loads(FEMUR))])
def test_a_plan_is_plain_data_and_comes_back(plan: SegmenterPlan) -> None:
    data = plan.as_data()
    check_schema(data, "train_segmenter", "the plan")
    assert json.loads(json.dumps(data)) == data
    assert SegmenterPlan.from_data(data) == plan
    assert SegmenterPlan.from_data(json.loads(json.dumps(data))) == plan
    check_segmenter_plan(plan)


def test_the_manifest_of_a_plan_is_relative_to_it(tmp_path: Path) -> None:
    plan = read(tmp_path, f"cases = 'cases/manifest.csv'\n{LEAST}")
    assert plan.cases == tmp_path / "cases" / "manifest.csv"


@pytest.mark.parametrize(
    ("changes", "kind", "size"),
    [
        ({}, "slices", (16, 16)),
        ({"network": {"name": "fcn-8s", "width": 2}}, "slices", (32, 32)),
        ({"network": {"name": "unet-2d"}, "view": ViewSpec("femur", 2.0, (45, 30, 34))}, "slices", (32, 36)),
        ({"network": {"name": "unet-3d"}, "block": (4, 20, 22)}, "blocks", (8, 20, 24)),
        ({"network": {"name": "unet-3d"}, "view": ViewSpec("femur", 2.0, (45, 30, 34))}, "blocks", (48, 32, 36)),
    ],
)
def test_samples_are_as_large_as_the_network_needs(changes: dict[str, Any], kind: str, size: tuple[int, ...]) -> None:
    plan = tiny(**changes)
    with torch.device("meta"):
        network = plan.build()
    assert (plan.sample_kind(network), plan.sample_size(network)) == (kind, size)
    check_segmenter_plan(plan)


@pytest.mark.parametrize("name", networks.segmenters())
def test_every_segmenter_can_be_planned(name: str) -> None:
    check_segmenter_plan(tiny(network={"name": name}, view=ViewSpec("femur", 2.0, (180, 128, 128))))


def test_neighbours_are_further_channels() -> None:
    plan = tiny(context=2)
    assert plan.network_parameters == {"in_channels": 5, "out_channels": 3, "width": 4, "levels": 2}
    check_segmenter_plan(plan)


# How the learning rate changes.


def test_along_a_line_it_falls_in_the_second_half() -> None:
    schedule = SegmenterSchedule(epochs=100, decay="linear")
    assert [schedule.factor(7 * epoch + 3, 7) for epoch in (0, 49)] == [1, 1]
    assert schedule.factor(7 * 50, 7) == pytest.approx(0.98039, abs=5e-6)
    assert schedule.factor(7 * 51 - 1, 7) == schedule.factor(7 * 50, 7)
    assert schedule.factor(7 * 99, 7) == pytest.approx(1 / 51)
    assert [SegmenterSchedule(epochs=1, decay="linear").factor(t, 5) for t in (0, 4)] == [1, 1]
    assert SegmenterSchedule(epochs=3, decay="linear").factor(10, 5) == 0.5


def test_as_a_polynomial_it_falls_with_every_update() -> None:
    schedule = SegmenterSchedule(epochs=10, decay="polynomial")
    assert [schedule.factor(t, 20) for t in (0, 100, 199)] == pytest.approx([1, 0.5**0.9, 0.005**0.9])


def test_inverse_to_time_it_is_that_of_keras() -> None:
    schedule = SegmenterSchedule(epochs=100, decay="inverse-time")
    assert [schedule.factor(t, 20) for t in (0, 1, 1000, 1999)] == pytest.approx([1, 1 / 1.001, 1 / 2, 1 / 2.999])
    assert SegmenterSchedule(decay="inverse-time", decay_rate=0.5).factor(4, 1) == pytest.approx(1 / 3)


def test_it_may_stay() -> None:
    assert {SegmenterSchedule(decay="none").factor(t, 10) for t in range(1000)} == {1.0}


# What is refused.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"batch": 1.5}, r"batch must be a whole number of at least 1, not 1\.5"),
        ({"patience": -1}, "patience must be a whole number of at least 0, not -1"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0, not 0"),
        ({"weight_decay": -1}, "weight_decay must be a number of at least 0, not -1"),
        ({"optimiser": "sgd"}, "optimiser is one of adam, adamw, not 'sgd'"),
        ({"decay": "cosine"}, "decay is one of none, linear, polynomial, inverse-time, not 'cosine'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        SegmenterSchedule(**fields)


FEMUR_VIEW = ViewSpec("femur", 2.0, (32, 32, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": -1}, "context must be a whole number of at least 0, not -1"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"validation_share": 1}, "validation_share must be a number of at least 0 and of at most 0.9, not 1"),
        ({"contrasts": ()}, "contrasts are empty: a network takes at least one"),
        (
            {"network": {"name": "unet-2d", "out_channels": 3}},
            "out_channels of the network follows from labels and context: leave it out",
        ),
        (
            {"labels": label_set("thigh-4-sided")},
            "a 'leg' view shows one leg, made to look like a right one: take the label set 'thigh-4'; `segment` tells "
            "left from right",
        ),
        (
            {"view": FEMUR_VIEW, "contrasts": (Contrast.CT, Contrast.T1W)},
            "the femur's view is for CT: in MR the femur's axis is not found; take view = leg",
        ),
        (
            {"loss": SegmentationLoss(class_weights=(1, 2))},
            "class_weights are 2; background and the labels of 'compartment' are 3",
        ),
        (
            {"patience": 3},
            "patience waits for a better score on validation cases: set validation_share, or a split",
        ),
        ({"split": "a", "validation_split": "a"}, "split and validation_split are both 'a'"),
        (
            {"network": {"name": "resnet-generator"}},
            "network 'resnet-generator' does not segment; those that do: unet-256, bayesian-unet, unet-2.5d",
        ),
        (
            {"network": {"name": "patch-discriminator"}},
            "network 'patch-discriminator' does not segment; those that do: unet-256, bayesian-unet, unet-2.5d",
        ),
        (
            {"network": {"name": "unet-3d"}, "block": (8, 8, 8), "context": 1},
            "context is for networks of slices; one of volumes sees the neighbours anyway",
        ),
        ({"block": (8, 8, 8)}, "block is for networks that are trained on blocks of volumes"),
        (
            {"network": {"name": "unet-2.5d"}, "view": FEMUR_VIEW, "block": (8, 8, 8)},
            "block is for networks that are trained on blocks of volumes",
        ),
        (
            {"network": {"name": "unet-3d"}},
            "'unet-3d' works on volumes: set block = [planes, rows, columns], or the femur's view",
        ),
        ({"network": {"name": "unet-2d", "depth": 3}}, "network 'unet-2d' has no parameter 'depth'; it has: in_ch"),
        ({"network": {"name": "unet-2d", "width": 0}}, "width must be a whole number of at least 1, not 0"),
    ],
)
def test_a_plan_that_cannot_be_trained_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check_segmenter_plan(tiny(**changes))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("view", [TINY.view, ViewSpec("whole", 1.0, (64, 64))])
def test_slices_of_three_planes_are_those_of_a_femur(view: ViewSpec) -> None:
    with pytest.raises(
        ParameterError, match=r"'unet-2\.5d' sees slices of three planes in cubic voxels: set view = femur"
    ):
        check_segmenter_plan(tiny(network={"name": "unet-2.5d"}, view=view))


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown network 'u-net'.*Known: .*unet-2d"):
        check_segmenter_plan(tiny(network={"name": "u-net"}))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("epochs = 3", "Additional properties are not allowed ('epochs' was unexpected)"),
        ("loss = { dice = -1 }", "at [loss][dice]: -1 is less than the minimum of 0"),
        ("loss = { dice = 0, cross_entropy = 0 }", "cross_entropy and dice both weigh 0: there is nothing to learn by"),
        ("precision = 'float16'", "at [precision]: 'float16' is not one of"),
        ("block = [8, 8]", "at [block]: [8, 8] is too short"),
        ("view = { kind = 'femur', size = [64, 64] }", "the size of a 'femur' view is 3 numbers"),
        ("window = { kind = 'fixed', low = 5, high = 1 }", "high must be a number above 5"),
        ("schedule = { patience = 2 }", "patience waits for a better score on validation cases"),
        ("augmentation = { scale = 2 }", "at [augmentation][scale]: 2 is greater than the maximum of 0.9"),
    ],
)
def test_a_file_that_cannot_be_trained_is_refused(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, LEAST + more)
    assert message in str(caught.value)


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        read_segmenter_plan(tmp_path / "none.toml")
    with pytest.raises(FormatError, match="not TOML"):
        read(tmp_path, "kind")
    with pytest.raises(SchemaError, match="'segment' was expected"):
        read(tmp_path, LEAST.replace('"segment"', '"translate"'))
    with pytest.raises(UnknownNameError, match="unknown label set 'thigh-5'"):
        read(tmp_path, LEAST.replace("thigh-4", "thigh-5"))


def test_the_class_weights_of_the_paper_can_be_planned_and_computed(tmp_path: Path) -> None:
    plan = read(tmp_path, f"{LEAST}loss = {{ class_weights = [1, 10, 1, 1, 10], dice = 0 }}\n")
    terms = plan.loss.terms(torch.zeros(1, 5, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64))
    assert float(plan.loss.total(terms)) == pytest.approx(10 * float(torch.tensor(5.0).log()))
