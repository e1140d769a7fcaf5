from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from musclekit.anatomy import body_mask
from musclekit.errors import ModalityError, ParameterError, VoxelError
from musclekit.image import Contrast, Grid, Image
from musclekit.neural.inference import blended_tiles, translate_volume
from musclekit.neural.slices import SliceSpec, slices_of
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW
from musclekit.phantom import make_thigh, render
from musclekit.testing import example_image
from tests.tiny_checkpoint import tiny_card, tiny_generator


class Recorder(nn.Module):
    """Adds a number to what it is given, and keeps it."""

    def __init__(self, add: float = 0.0) -> None:
        super().__init__()
        self.add = add
        self.seen: list[torch.Tensor] = []

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        self.seen.append(planes.clone())
        return planes + self.add

    @property
    def windows(self) -> NDArray[np.float32]:
        return torch.cat(self.seen)[:, 0].numpy()


def t1w(shape: tuple[int, int, int] = (3, 64, 64), spacing: tuple[float, float, float] = (5, 3, 3)) -> Image:
    return example_image(Contrast.T1W, shape=shape, spacing=spacing)


def two_legs() -> Image:
    return render(make_thigh(3, shape=(2, 96, 160), spacing=(10, 3, 3)), Contrast.T1W)


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (100, 231), (400, 64)])
@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
def test_tiles_of_a_network_that_looks_at_single_pixels_make_up_the_whole(
    shape: tuple[int, int], overlap: float
) -> None:
    plane = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(blended_tiles(lambda tiles: 2 * tiles + 1, plane, (64, 64), overlap=overlap),
                               2 * plane + 1, atol=1e-5)  # fmt: skip


def test_tiles_that_disagree_fade_into_each_other() -> None:
    def by_number(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return tiles * 0 + np.arange(len(tiles), dtype=np.float32)[:, None, None]

    done = blended_tiles(by_number, np.zeros((8, 96), np.float32), (8, 64))
    assert done[4, 0] == 0
    assert done[4, -1] == 1
    assert (np.diff(done[4]) >= 0).all()
    assert np.diff(done[4]).max() < 0.1


@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.0, 7.0])
def test_a_network_that_changes_nothing_gives_the_image_back_at_full_resolution(spacing: float) -> None:
    image = t1w()
    fake = translate_volume(Recorder(), tiny_card(spacing_mm=spacing), image)
    assert fake.dtype == np.float32
    np.testing.assert_array_equal(fake, image.voxels)


def test_what_the_network_changes_is_added_in_the_units_of_the_image() -> None:
    image = t1w()
    body = body_mask(image)
    scale = MR_WINDOW.scale_of(image, body)
    fake = translate_volume(Recorder(-0.1), tiny_card(spacing_mm=5.0), image)
    np.testing.assert_array_equal(fake[~body], image.voxels[~body])
    change = (fake - image.voxels)[body]
    half = (scale.high - scale.low) / 2
    room = image.voxels[body] - scale.low
    # No darker than the scale reaches, and what lies below it already stays.
    np.testing.assert_allclose(change, -np.clip(room, 0, 0.1 * half), atol=2e-3 * half)


def test_another_contrast_comes_in_its_own_units_with_air_around_it() -> None:
    image = t1w()
    body = body_mask(image)
    card = tiny_card("mr-to-ct")
    fake = translate_volume(Recorder(), card, image)
    unit = card.windows[0].scale_of(image, body).to_unit(image.voxels)
    np.testing.assert_allclose(fake[body], (-200 + 350 * (unit + 1))[body], atol=0.01)
    assert (fake[~body] == -1000).all()
    ct = example_image(Contrast.CT, shape=(3, 64, 64), spacing=(5, 3, 3))
    back = translate_volume(Recorder(), tiny_card("ct-to-mr"), ct)
    assert (back[~body_mask(ct)] == 0).all()
    assert back.min() >= 0
    assert back.max() <= 900


def test_an_inverted_window_is_turned_back() -> None:
    image = t1w()
    body = body_mask(image)
    window = replace(MR_WINDOW, inverted=True)
    same = translate_volume(Recorder(), tiny_card(windows=(window, window)), image)
    np.testing.assert_allclose(same, image.voxels, atol=1e-3)
    brighter = translate_volume(Recorder(-0.5), tiny_card(windows=(window, window)), image)
    assert np.median(brighter[body]) > np.median(image.voxels[body])
    network = Recorder()
    translate_volume(network, tiny_card("mr-to-ct", windows=(window, CT_WINDOW)), image)
    plain = Recorder()
    translate_volume(plain, tiny_card("mr-to-ct"), image)
    # Inside the body the network sees the opposite, around it air as ever.
    seen, opposite = network.windows, plain.windows
    inside = np.abs(opposite) < 0.9
    np.testing.assert_allclose(seen[inside].mean(), -opposite[inside].mean(), atol=0.1)
    assert (seen[:, 0] == -1).all()


@pytest.mark.parametrize("per_leg", [False, True])
@pytest.mark.parametrize("spacing", [2.5, 4.0])
def test_the_network_sees_what_it_was_trained_on(per_leg: bool, spacing: float) -> None:
    image = two_legs()
    size = 64 if per_leg else 160
    network = Recorder()
    card = tiny_card(spacing_mm=spacing, size=size, per_leg=per_leg)
    translate_volume(network, card, image)
    trained = slices_of(image, MR_WINDOW, SliceSpec(size, spacing, min_body_mm2=1), per_leg=per_leg)
    assert trained.n_large == 0
    np.testing.assert_array_equal(network.windows, trained.slices)


def test_each_leg_is_changed_once_and_put_back_where_it_was() -> None:
    image = two_legs()
    body = body_mask(image)
    card = tiny_card(spacing_mm=3.0, size=96, per_leg=True)

    class Inner(nn.Module):
        """Darkens the half of a leg that lies on the right of the picture."""

        def forward(self, planes: torch.Tensor) -> torch.Tensor:
            ramp = torch.linspace(-1, 1, planes.shape[-1]).clamp(min=0)
            return planes - 0.5 * ramp

    fake = translate_volume(Inner(), card, image)
    np.testing.assert_array_equal(fake[~body], image.voxels[~body])
    # One leg is mirrored before and after, so the change is symmetric about the middle between the legs.
    change = (image.voxels - fake).sum(axis=(0, 1))
    middle = len(change) // 2
    outer, inner = change[: middle // 2].sum() + change[-middle // 2 :].sum(), change[middle // 2 : -middle // 2].sum()
    assert max(outer, inner) > 3 * min(outer, inner)
    whole = translate_volume(Inner(), card, image, per_leg=False)
    assert not np.array_equal(whole, fake)


@pytest.mark.parametrize(("size", "expected"), [(64, 64), (62, 64), (44, 48), (20, 20)])
def test_a_body_larger_than_the_network_goes_whole_up_to_twice_its_size_then_in_tiles(size: int, expected: int) -> None:
    image = t1w()  # a body of 54 pixels
    network = Recorder(0.0)
    card = tiny_card(size=size, spacing_mm=3.0, multiple=4)
    fake = translate_volume(network, card, image)
    np.testing.assert_array_equal(fake, image.voxels)
    shapes = {tuple(planes.shape[-2:]) for planes in network.seen}
    assert max(max(shape) for shape in shapes) <= max(expected, 56)
    assert all(n % 4 == 0 for shape in shapes for n in shape)
    if size == 20:
        assert shapes == {(20, 20)}


def test_tiles_of_a_pixelwise_network_equal_the_whole() -> None:
    image = t1w()
    tiled = translate_volume(Recorder(-0.2), tiny_card(size=16, spacing_mm=3.0), image)
    whole = translate_volume(Recorder(-0.2), tiny_card(size=64, spacing_mm=3.0), image)
    np.testing.assert_allclose(tiled, whole, atol=0.01)


@pytest.mark.parametrize("shape", [(1, 3, 5), (2, 9, 7)])
def test_an_image_smaller_than_the_stride_is_padded(shape: tuple[int, int, int]) -> None:
    voxels = np.full(shape, 10.0)
    voxels[:, 1:-1, 1:-1] = 500.0
    voxels[:, shape[1] // 2, shape[2] // 2] = 300.0
    image = Image(voxels, Grid.from_spacing(shape, (5, 30, 30)), Contrast.T1W)
    for spacing in (3.0, 30.0, 80.0):
        fake = translate_volume(tiny_generator(), tiny_card(size=16, spacing_mm=spacing), image)
        assert fake.shape == shape
        assert np.isfinite(fake).all()


def test_slices_come_out_alike_in_batches_of_any_size() -> None:
    image = t1w((5, 64, 64))
    one, two, eight = (translate_volume(tiny_generator(), tiny_card(), image, batch=batch) for batch in (1, 2, 8))
    np.testing.assert_allclose(one, two, atol=0.05)
    np.testing.assert_allclose(one, eight, atol=0.05)
    network = Recorder()
    translate_volume(network, tiny_card(), image, batch=2)
    assert [len(planes) for planes in network.seen] == [2, 2, 1]


def test_slices_without_a_body_stay_as_they_are() -> None:
    image = t1w((4, 64, 64))
    voxels = image.voxels.copy()
    voxels[0] = 5.0
    empty = image.with_voxels(voxels)
    network = Recorder(-0.5)
    fake = translate_volume(network, tiny_card(), empty)
    assert sum(len(planes) for planes in network.seen) == 3
    np.testing.assert_array_equal(fake[0], empty.voxels[0])


def test_bad_input_is_refused() -> None:
    image = t1w()
    for batch in (0, 1.5, "many"):
        with pytest.raises(ParameterError, match="batch must be a whole number"):
            translate_volume(Recorder(), tiny_card(), image, batch=batch)  # type: ignore[arg-type]
    with pytest.raises(VoxelError, match="the image is constant"):
        translate_volume(Recorder(), tiny_card(), image.with_voxels(image.voxels * 0))
    with pytest.raises(ModalityError, match="are Hounsfield units; is it CT"):
        translate_volume(Recorder(), tiny_card(), Image(example_image(Contrast.CT).voxels,
                                                        example_image(Contrast.CT).grid, Contrast.T1W))  # fmt: skip
    with pytest.raises(VoxelError, match="the network 'tiny hard-to-easy' answers with NaN or infinite values"):
        translate_volume(Recorder(float("nan")), tiny_card(), image)


class TooLarge(Recorder):
    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_a_device_with_too_little_memory_says_what_helps() -> None:
    with pytest.raises(ParameterError, match="'cpu' has too little memory: translate fewer than 8 slices at once"):
        translate_volume(TooLarge(), tiny_card(), t1w())
