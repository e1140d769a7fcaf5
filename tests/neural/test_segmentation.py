from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from musclekit.anatomy import body_mask, keep_largest, split_legs
from musclekit.errors import ModalityError, ParameterError, VoxelError
from musclekit.image import Contrast, Grid, Image
from musclekit.labels import label_set
from musclekit.neural import segmentation
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.device import told_of_memory
from musclekit.neural.labelled import labelled_views
from musclekit.neural.networks import MonteCarloDropout, UNet3D, sampled
from musclekit.neural.segmentation import Samples, class_probabilities, segment_volume
from musclekit.neural.views import AIR, ViewSpec, unit_image, views_of
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW
from musclekit.phantom import make_case
from tests.tiny_segmenter import tiny_network, tiny_segmenter_card

THIGH = label_set("thigh-4")
CASE = make_case(1, shape=(6, 44, 80), spacing=(10, 5, 5), contrasts=(Contrast.CT,), reference="thigh-4")
IMAGE = CASE.image
LONG = make_case(2, shape=(36, 30, 52), spacing=(6, 8, 8), contrasts=(Contrast.CT,), reference="thigh-4")
WHOLE, LEG = ViewSpec("whole", 5.0, (32, 32)), ViewSpec("leg", 5.0, (32, 32))
VIEWS = {"whole": WHOLE, "leg": LEG, "coarse legs": ViewSpec("leg", 8.0, (24, 24))}
FEMUR = ViewSpec("femur", 8.0, (32, 24, 24))


class Greys(nn.Module):
    """Tells classes by grey value, each pixel by itself; with dropout it doubts, and forgets some of the classes."""

    def __init__(self, dimensions: int = 2, *, dropout: float = 0.0, classes: int = 5) -> None:
        super().__init__()
        self.dimensions, self.multiple, self.least = dimensions, 1, 1
        self.drop = MonteCarloDropout(dropout)
        self.middles = nn.Parameter(torch.linspace(-1, 0.2, classes))
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.detach().clone())
        middles = self.middles.reshape(1, -1, *[1] * self.dimensions)
        middle = images.shape[1] // 2
        logits: torch.Tensor = -30 * (images[:, middle : middle + 1] - middles).square()
        return logits + 2 * (self.drop(torch.ones_like(logits)) - 1)


def greys_card(view: ViewSpec = WHOLE, **changes: Any) -> SegmenterCard:
    card = tiny_segmenter_card("unet-2d", **{"label_set": THIGH, "view": view, **changes})
    return replace(card, name="greys", network={"name": "greys", "parameters": {}})


def tiny(name: str = "bayesian-unet", seed: int = 0, **changes: Any) -> tuple[nn.Module, SegmenterCard]:
    view = FEMUR if name in ("unet-2.5d", "unet-3d") else LEG
    card = tiny_segmenter_card(name, **{"label_set": THIGH, "view": view, **changes})
    return tiny_network(card, seed), card


def unit_of(view_spec: ViewSpec = WHOLE, image: Image = IMAGE) -> list[tuple[Any, np.ndarray]]:
    body = body_mask(image)
    scale = CT_WINDOW.scale_of(image, body)
    return [(view, unit_image(image, view, scale)) for view in views_of(image, view_spec, body=body)]


@cache
def legs_of(image: Image = IMAGE) -> dict[str | None, np.ndarray]:
    return {leg.side: leg.mask for leg in split_legs(image, body_mask(image))}


def in_legs(image: Image = IMAGE) -> np.ndarray:
    inside: np.ndarray = np.logical_or.reduce(list(legs_of(image).values()))
    return inside


# Once, without dropout.


@pytest.mark.parametrize("view", VIEWS)
def test_labels_come_on_the_grid_of_the_scan_and_only_inside_the_legs(view: str) -> None:
    found = segment_volume(Greys(), greys_card(VIEWS[view]), IMAGE)
    assert (found.classes.dtype, found.classes.shape) == (np.uint8, IMAGE.grid.shape)
    assert (found.variance, found.sides, found.volume_mm3, found.area_mm2) == (None, (), None, None)
    assert not found.classes[~in_legs()].any()
    assert set(np.unique(found.classes).tolist()) == {0, 1, 2, 3, 4}


def test_at_its_own_spacing_every_voxel_is_given_what_the_network_says_of_it() -> None:
    found = segment_volume(Greys(), greys_card(), IMAGE, largest=False)
    body = in_legs()
    unit = CT_WINDOW.scale_of(IMAGE).to_unit(IMAGE.voxels)
    nearest = np.abs(unit[..., None] - np.linspace(-1, 0.2, 5)).argmin(axis=-1)
    ties = np.abs(np.sort(np.abs(unit[..., None] - np.linspace(-1, 0.2, 5)), axis=-1) @ [1, -1, 0, 0, 0]) < 1e-3
    assert ((found.classes == np.where(body, nearest, 0)) | ties).all()


@pytest.mark.filterwarnings("ignore:the scan of the .* leg is shorter")
@pytest.mark.parametrize("name", ["bayesian-unet", "unet-2d", "unet-2.5d", "unet-3d"])
def test_networks_of_slices_and_of_volumes_answer_in_their_views(name: str) -> None:
    network, card = tiny(name)
    found = segment_volume(network, card, LONG.image, largest=False)
    assert found.classes.shape == LONG.image.grid.shape
    assert not found.classes[~in_legs(LONG.image)].any()
    assert [answer.shape[1:] for _, answer in found.answers] == [view.frame.target.shape for view, _ in found.answers]
    assert all(answer.shape[0] == 5 for _, answer in found.answers)
    again = segment_volume(network, card, LONG.image, largest=False)
    np.testing.assert_array_equal(found.classes, again.classes)


def test_the_network_sees_what_it_was_trained_on() -> None:
    for view in VIEWS.values():
        network = Greys()
        segment_volume(network, greys_card(view), IMAGE)
        (scan,) = labelled_views([CASE], THIGH, view, {Contrast.CT: CT_WINDOW})
        shown = torch.cat([part.flatten(0, 1) for part in network.seen if part.shape[2:] == network.seen[0].shape[2:]])
        learnt = scan.views[0].image
        np.testing.assert_allclose(shown[: len(learnt)], learnt, atol=5e-4)


def test_a_slice_is_shown_with_its_neighbours() -> None:
    network = Greys()
    segment_volume(network, greys_card(context=1), IMAGE, batch=4)
    assert [len(given) for given in network.seen] == [4, 2]
    given = torch.cat(network.seen)
    assert given.shape[1] == 3
    assert torch.equal(given[1:, 0], given[:-1, 1])
    assert torch.equal(given[:-1, 2], given[1:, 1])
    assert torch.equal(given[0, 0], given[0, 1])
    assert torch.equal(given[-1, 2], given[-1, 1])


def test_a_left_leg_is_mirrored_there_and_back() -> None:
    class Half(Greys):
        """Gives a class to what lies on one side of the middle of its window."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            ramp = torch.linspace(-1, 1, images.shape[-1]).expand(images.shape)
            return torch.cat([torch.zeros_like(ramp), ramp, *[torch.full_like(ramp, -9)] * 3], dim=1)

    found = segment_volume(Half(), greys_card(LEG), IMAGE).classes == 1
    middles = []
    for leg in split_legs(IMAGE, body_mask(IMAGE)):
        x = np.broadcast_to(np.arange(leg.mask.shape[2]), leg.mask.shape)
        middles.append((leg.side, x[found & leg.mask].mean() - x[leg.mask].mean()))
    (first, one), (second, other) = middles
    assert {first, second} == {"left", "right"}
    assert one == pytest.approx(-other, abs=0.5)
    assert abs(one) > 3


def test_the_answer_does_not_depend_on_the_batch() -> None:
    network, card = tiny("unet-2d")
    slices = np.random.default_rng(0).uniform(-1, 1, (7, 1, 30, 33)).astype(np.float32)
    whole = class_probabilities(network, slices)
    assert whole.shape == (5, 7, 30, 33)
    np.testing.assert_allclose(whole.sum(axis=0), 1, atol=1e-5)
    for size in (1, 3):
        parts = [class_probabilities(network, slices[n : n + size]) for n in range(0, 7, size)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    network, card = tiny()
    results = [segment_volume(network, card, IMAGE, batch=batch, samples=Samples(3)) for batch in (1, 4, 100)]
    for found in results[1:]:
        assert np.mean(found.classes != results[0].classes) < 1e-3
        np.testing.assert_allclose(found.variance, results[0].variance, atol=1e-5)
        np.testing.assert_allclose(found.volume_mm3, results[0].volume_mm3, rtol=1e-3, atol=1e3)


def test_the_largest_piece_of_each_structure_of_each_leg_is_kept() -> None:
    found, whole = (segment_volume(Greys(), greys_card(), IMAGE, largest=kept).classes for kept in (True, False))
    assert np.count_nonzero(found) < np.count_nonzero(whole)
    for leg in split_legs(IMAGE, body_mask(IMAGE)):
        expected = keep_largest(np.where(leg.mask, whole, 0))
        np.testing.assert_array_equal(found[leg.mask], expected[leg.mask])
    # Where sides are told apart a structure has one piece in the whole scan.
    sided = label_set("thigh-4-sided")
    network = Greys(classes=9)
    found, whole = (
        segment_volume(network, greys_card(label_set=sided), IMAGE, largest=kept).classes for kept in (True, False)
    )
    np.testing.assert_array_equal(found, keep_largest(whole))


def test_bfloat16_says_much_the_same() -> None:
    network, card = tiny("unet-2d")
    slices = np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 32)).astype(np.float32)
    exact, rough = (class_probabilities(network, slices, precision=kind) for kind in ("float32", "bfloat16"))
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).mean() < 0.02
    same = segment_volume(network, card, IMAGE, precision="bfloat16").classes
    assert np.mean(same == segment_volume(network, card, IMAGE).classes) > 0.9


def test_what_does_not_suit_the_network_is_filled_up_with_air() -> None:
    network = Greys()
    network.multiple, network.least = 8, 24
    given = np.zeros((2, 1, 25, 10), dtype=np.float32)
    assert class_probabilities(network, given).shape == (5, 2, 25, 10)
    (seen,) = network.seen
    assert seen.shape == (2, 1, 32, 24)
    assert (seen[..., :25, :10] == 0).all()
    assert float(seen.sum()) == float(AIR) * 2 * (32 * 24 - 250)


# Probabilities.


@pytest.mark.parametrize("view", VIEWS)
def test_probabilities_come_on_the_grid_of_the_scan(view: str) -> None:
    segmented = segment_volume(Greys(), greys_card(VIEWS[view]), IMAGE, largest=False)
    found = segmented.probabilities()
    assert (found.dtype, found.shape) == (np.float32, (5, *IMAGE.grid.shape))
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    seen = np.logical_or.reduce([one.mask for one in views_of(IMAGE, VIEWS[view])])
    assert (found[0][~seen] == 1).all()
    inside = in_legs()
    assert np.mean((found.argmax(axis=0) == segmented.classes)[inside]) > 0.995


def test_probabilities_of_samples_are_their_mean() -> None:
    network, card = Greys(dropout=0.5), greys_card()
    (view, unit), = unit_of()  # fmt: skip
    by_hand = np.mean(stacked_samples(network, unit, Samples(4)), axis=0)
    found = segment_volume(network, card, IMAGE, samples=Samples(4)).probabilities()
    brought = [view.frame.inverse()._sample(channel.astype(np.float32), 1, 0) for channel in by_hand]
    np.testing.assert_allclose(found[:, view.mask], np.stack(brought)[:, view.mask], atol=1e-3)


# Samples.


def stacked_samples(network: nn.Module, unit: np.ndarray, samples: Samples) -> np.ndarray:
    """Each sample of a whole view; shape (samples, classes, Z, Y, X)."""
    answers = []
    for seed in samples.seeds(IMAGE):
        with sampled(network, seed), torch.no_grad():
            answers.append(network(torch.from_numpy(unit[:, None])).softmax(dim=1).numpy().swapaxes(0, 1))
    return np.stack(answers)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_variance_is_that_of_samples_stacked_by_hand(reduction: Any) -> None:
    network, samples = Greys(dropout=0.5), Samples(5, seed=3, reduction=reduction)
    found = segment_volume(network, greys_card(), IMAGE, batch=4, samples=samples)
    (view, unit), = unit_of()  # fmt: skip
    variance = stacked_samples(network, unit, samples).astype(np.float64).var(axis=0)
    expected = variance.sum(axis=0) if reduction == "sum" else variance.mean(axis=0)
    back = view.frame.inverse()._sample(expected.astype(np.float32), 1, 0)
    assert found.variance is not None
    assert found.variance.dtype == np.float32
    np.testing.assert_allclose(found.variance[view.mask], back[view.mask], atol=1e-5)
    assert (found.variance[~view.mask] == 0).all()
    assert found.variance.max() > 0.01


@pytest.mark.parametrize("view", VIEWS)
def test_areas_of_each_leg_add_up_to_volumes_and_to_the_leg(view: str) -> None:
    found = segment_volume(Greys(dropout=0.5), greys_card(VIEWS[view]), IMAGE, samples=Samples(3))
    assert found.area_mm2 is not None
    assert found.volume_mm3 is not None
    assert found.area_mm2.shape == (2, 3, 5, 6)
    assert found.volume_mm3.shape == (2, 3, 5)
    np.testing.assert_allclose(found.area_mm2.sum(axis=3) * 10, found.volume_mm3)
    assert found.volume_mm3[..., 1:].std(axis=1).max() > 0
    assert set(found.sides) == {"left", "right"}
    exact = view != "coarse legs"
    for side, areas in zip(found.sides, found.area_mm2, strict=True):
        whole = legs_of()[side].sum(axis=(1, 2)) * 25.0
        np.testing.assert_allclose(areas.sum(axis=1), np.tile(whole, (3, 1)), rtol=1e-9 if exact else 0.04)


def test_sided_labels_know_their_leg_themselves() -> None:
    card = greys_card(label_set=label_set("thigh-4-sided"))
    found = segment_volume(Greys(dropout=0.5, classes=9), card, IMAGE, samples=Samples(2))
    assert found.sides == (None,)
    assert found.volume_mm3 is not None
    assert found.volume_mm3.shape == (1, 2, 9)
    assert found.volume_mm3[0].sum(axis=1) == pytest.approx([body_mask(IMAGE).sum() * 250.0] * 2)


def test_at_its_own_spacing_areas_are_counted_voxels() -> None:
    network, samples = Greys(dropout=0.5), Samples(3, seed=1)
    found = segment_volume(network, greys_card(), IMAGE, samples=samples)
    (view, unit), = unit_of()  # fmt: skip
    assert found.area_mm2 is not None
    for n, one in enumerate(stacked_samples(network, unit, samples).argmax(axis=1)):
        classes = view.frame.inverse()._sample(one.astype(np.uint8), 0, 0)
        for leg, side in enumerate(found.sides):
            for k, z in product(range(5), range(6)):
                counted = np.count_nonzero((classes[z] == k) & legs_of()[side][z])
                assert found.area_mm2[leg, n, k, z] == pytest.approx(counted * 25)


@pytest.mark.filterwarnings("ignore:the scan of the .* leg is shorter")
@pytest.mark.parametrize(("planes", "thickness"), [(108, 2.0), (36, 6.0), (18, 12.0)])
def test_in_a_turned_view_areas_lie_in_the_slices_of_the_scan(planes: int, thickness: float) -> None:
    """Thinner slices than the view's voxels, about as thick ones, and thicker ones."""
    scan = make_case(2, shape=(planes, 30, 52), spacing=(thickness, 8, 8), contrasts=(Contrast.CT,))
    view = ViewSpec("femur", 4.0, (64, 48, 48))
    found = segment_volume(Greys(3, dropout=0.5), greys_card(view), scan.image, samples=Samples(2))
    assert found.area_mm2 is not None
    assert found.volume_mm3 is not None
    ends = round(30 / thickness)
    for side, areas in zip(found.sides, found.area_mm2, strict=True):
        leg = legs_of(scan.image)[side]
        per_slice = areas[0].sum(axis=0)
        truth = leg.sum(axis=(1, 2)) * 64.0
        np.testing.assert_allclose(per_slice[ends:-ends], truth[ends:-ends], rtol=0.05)
        assert per_slice.sum() == pytest.approx(truth.sum(), rel=0.03)
    np.testing.assert_allclose(found.area_mm2.sum(axis=3) * thickness, found.volume_mm3)


@given(st.integers(1, 40), st.floats(0.05, 60))
def test_a_voxel_is_shared_out_between_the_slices_that_it_reaches(planes: int, thickness: float) -> None:
    shares = segmentation._shares(planes, thickness)
    heights = np.arange(len(shares)) / segmentation.HEIGHTS
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    away = np.abs(heights[:, None] - np.arange(planes))
    # Within the scan; those at its ends are shifted into it.
    inside = (heights >= thickness / 2 - 0.5) & (heights <= planes - 0.5 - thickness / 2)
    expected = np.clip((1 + thickness) / 2 - away, 0, min(1, thickness)) / thickness
    np.testing.assert_allclose(shares[inside], expected[inside], atol=1e-9)


def test_where_voxels_lie_in_slices_none_is_shared() -> None:
    shares = segmentation._shares(5, 1.0)
    np.testing.assert_allclose(shares[:: segmentation.HEIGHTS], np.eye(5))


def test_the_same_seed_is_the_same_answer_and_another_one_is_not() -> None:
    network, card = tiny()
    first, same, other = (segment_volume(network, card, IMAGE, samples=Samples(3, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.variance, same.variance)
    np.testing.assert_array_equal(first.classes, same.classes)
    np.testing.assert_array_equal(first.area_mm2, same.area_mm2)
    assert not np.array_equal(first.variance, other.variance)


def test_every_scan_has_samples_of_its_own() -> None:
    seeds = [Samples(4).seeds(image) for image in (IMAGE, LONG.image)]
    assert len({seed for given in seeds for seed in given}) == 8
    assert Samples(2).seeds(IMAGE) == seeds[0][:2]
    assert Samples(4, seed=1).seeds(IMAGE) != seeds[0]


def test_networks_together_are_the_samples_of_an_ensemble() -> None:
    networks = [Greys(), Greys()]
    with torch.no_grad():
        networks[1].middles += 0.1
    found = segment_volume(networks, greys_card(), IMAGE)
    (view, unit), = unit_of()  # fmt: skip
    with torch.no_grad():
        answers = np.stack([one(torch.from_numpy(unit[:, None])).softmax(dim=1).numpy() for one in networks])
    expected = answers.astype(np.float64).var(axis=0).sum(axis=1).astype(np.float32)
    back = view.frame.inverse()._sample(expected, 1, 0)
    assert found.variance is not None
    assert found.volume_mm3 is not None
    np.testing.assert_allclose(found.variance[view.mask], back[view.mask], atol=1e-5)
    assert found.volume_mm3.shape == (2, 2, 5)
    for network, volumes in zip(networks, found.volume_mm3.sum(axis=0), strict=True):
        alone = segment_volume(network, greys_card(), IMAGE, largest=False).classes
        np.testing.assert_allclose(volumes, np.bincount(alone[in_legs()], minlength=5) * 250.0, rtol=0.01)
    one = segment_volume([Greys()], greys_card(), IMAGE)
    assert one.variance is None


# Large volumes.


def test_blocks_of_a_large_volume_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.random.default_rng(0).uniform(-1, 1, (1, 1, 23, 6, 7)).astype(np.float32)
    network = Greys(3)
    whole = class_probabilities(network, volume)
    assert whole.shape == (5, 23, 6, 7)
    for most in (42, 5 * 42, 8 * 42 + 3, 22 * 42, 23 * 42):
        monkeypatch.setattr(segmentation, "MOST_WHOLE", most)
        network.seen.clear()
        np.testing.assert_allclose(class_probabilities(network, volume), whole, atol=1e-6)
        assert (len(network.seen) == 1) == (most == 23 * 42)
        assert all(part[0, 0].numel() <= most for part in network.seen)


def test_blocks_are_as_large_as_the_network_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = UNet3D(1, 3, width=2, levels=3).eval()  # multiples of 4, and at least 8
    volume = np.random.default_rng(0).uniform(-1, 1, (1, 1, 20, 8, 12)).astype(np.float32)
    for most in (1, 4 * 96, 8 * 96, 19 * 96):
        monkeypatch.setattr(segmentation, "MOST_WHOLE", most)
        found = class_probabilities(network, volume)
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_blocks_that_disagree_fade_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(Greys):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen.append(images)
            return torch.stack([torch.zeros_like(images[:, 0]), torch.full_like(images[:, 0], len(self.seen))], dim=1)

    monkeypatch.setattr(segmentation, "MOST_WHOLE", 8 * 16)
    found = class_probabilities(Moody(3), np.zeros((1, 1, 12, 4, 4), np.float32))[1, :, 0, 0]
    low, high = (1 / (1 + np.exp(-n)) for n in (1, 2))
    assert found[0] == pytest.approx(low)
    assert found[-1] == pytest.approx(high)
    assert (np.diff(found) >= -1e-7).all()
    assert np.diff(found).max() < 0.5 * (high - low)


# What is refused, and what is told.


def test_a_network_that_answers_with_no_number_is_refused() -> None:
    network, card = tiny()
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")  # type: ignore[union-attr, index]
    message = "the network 'tiny bayesian-unet' answers with NaN or infinite values"
    for samples in (None, Samples(2)):
        with pytest.raises(VoxelError, match=message):
            segment_volume(network, card, IMAGE, samples=samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1, not 0"),
        ({"precision": "float16"}, "precision is one of float32, bfloat16, not 'float16'"),
        ({"samples": Samples(2)}, "'greys' has no dropout to sample: leave samples out, or take an ensemble"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        segment_volume(Greys(), greys_card(), IMAGE, **arguments)


def test_an_ensemble_is_not_sampled() -> None:
    with pytest.raises(ParameterError, match="an ensemble is its own samples: leave them out"):
        segment_volume([Greys(dropout=0.5)] * 2, greys_card(), IMAGE, samples=Samples(2))


def test_bad_images_are_refused() -> None:
    with pytest.raises(VoxelError, match="the image is constant"):
        segment_volume(Greys(), greys_card(), IMAGE.with_voxels(IMAGE.voxels * 0))
    as_mr = IMAGE.with_voxels(IMAGE.voxels, contrast=Contrast.T1W)
    with pytest.raises(ModalityError, match="are Hounsfield units; is it CT"):
        segment_volume(Greys(), greys_card(windows={Contrast.T1W: MR_WINDOW}), as_mr)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 1}, "samples must be a whole number of at least 2, not 1"),
        ({"n": 2, "seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"n": 2, "reduction": "max"}, "reduction is one of sum, mean, not 'max'"),
    ],
)
def test_samples_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Samples(**fields)


class TooLarge(Greys):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**60)


def test_too_little_memory_is_told_with_what_helps() -> None:
    message = "device 'cpu' has too little memory: segment with a smaller batch than 2, in bfloat16, or one scan at a t"
    with pytest.raises(ParameterError, match=message) as caught:
        segment_volume(TooLarge(), greys_card(), IMAGE)
    # Torch's own error tells of bytes, and is kept for those who want it.
    assert "DefaultCPUAllocator" in str(caught.value.__cause__)


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_every_error_of_memory_is_told_alike(problem: Exception) -> None:
    with (
        pytest.raises(ParameterError, match=r"^device 'cuda:0' has too little memory: do less$"),
        told_of_memory("cuda:0", "do less"),
    ):
        raise problem


def test_other_errors_are_not_taken_for_errors_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"), told_of_memory("cpu", "do less"):
        raise RuntimeError("shapes do not match")
    with told_of_memory("cpu", "do less"):
        pass


def scans_deciles(view: ViewSpec = WHOLE) -> tuple[tuple[float, ...], tuple[float, ...]]:
    (scan,) = labelled_views([CASE], THIGH, view, {Contrast.CT: CT_WINDOW})
    return tuple(scan.deciles.tolist()), tuple(scan.deciles.tolist())


def test_grey_values_unlike_those_trained_on_are_told_of() -> None:
    alike = greys_card(deciles={Contrast.CT: scans_deciles()})
    segment_volume(Greys(), alike, IMAGE)
    shifted = IMAGE.with_voxels(np.where(body_mask(IMAGE), IMAGE.voxels + 105, IMAGE.voxels))
    message = (
        "the grey values are unlike those that 'greys' was trained on: their deciles lie "
        r"1\d % of the range outside \(limit 10 %\); look at the labels before using them"
    )
    with pytest.warns(UserWarning, match=message):
        segment_volume(Greys(), alike, shifted)
    slightly = IMAGE.with_voxels(np.where(body_mask(IMAGE), IMAGE.voxels + 35, IMAGE.voxels))
    segment_volume(Greys(), alike, slightly)
    segment_volume(Greys(), greys_card(deciles={Contrast.T1W: scans_deciles()}), shifted)


@pytest.mark.parametrize("view", VIEWS)
def test_a_scan_that_was_trained_on_is_like_itself(view: str) -> None:
    card = greys_card(VIEWS[view], deciles={Contrast.CT: scans_deciles(VIEWS[view])})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        like_itself = segment_volume(Greys(), card, IMAGE)
    np.testing.assert_array_equal(like_itself.classes, segment_volume(Greys(), greys_card(VIEWS[view]), IMAGE).classes)


def test_a_leg_that_does_not_fit_the_field_is_told_of() -> None:
    card = greys_card(ViewSpec("femur", 8.0, (12, 24, 24)))
    with pytest.warns(UserWarning, match="lie outside the field") as told:
        segment_volume(Greys(3), card, LONG.image)
    lines = [str(one.message) for one in told]
    assert len(lines) == 2
    for line, side in zip(lines, ("right", "left"), strict=True):
        share, _, rest = line.partition(" % ")
        assert 40 < int(share) < 70
        assert rest == f"of the {side} leg lie outside the field of the network, and are not labelled"
    assert all(one.filename == __file__ for one in told)


def test_what_a_view_has_to_say_is_told_where_it_was_asked_for() -> None:
    alone = make_case(2, legs="left", shape=(4, 44, 44), contrasts=(Contrast.CT,)).image
    with pytest.warns(UserWarning, match=r"a leg of unknown side was not mirrored: say which it is \(side\)") as told:
        segment_volume(Greys(), greys_card(LEG), alone)
    assert [one.filename for one in told] == [__file__]
    segment_volume(Greys(), greys_card(LEG), alone, side="left")


def test_one_slice_is_a_scan() -> None:
    grid = IMAGE.grid
    one = Image(IMAGE.voxels[2:3], Grid((1, *grid.shape[1:]), grid.affine), Contrast.CT)
    found = segment_volume(Greys(dropout=0.5), greys_card(context=2), one, samples=Samples(2))
    assert found.classes.shape == (1, 44, 80)
    assert found.area_mm2 is not None
    assert found.area_mm2.shape == (2, 2, 5, 1)


def test_a_scan_is_not_changed() -> None:
    before = IMAGE.voxels.copy()
    network, card = tiny()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    segment_volume(network, replace(card, view=WHOLE), IMAGE, samples=Samples(2))
    np.testing.assert_array_equal(IMAGE.voxels, before)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert not any(weight.grad is not None for weight in network.parameters())
