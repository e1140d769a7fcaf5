from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from musclekit.neural.networks import PlaneUNets, plane_unets
from musclekit.neural.networks.plane_unets import Fusion, fused, neighbours


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def small(fusion: Fusion = "mean", distance: int = 2) -> PlaneUNets:
    torch.manual_seed(0)
    return PlaneUNets(1, 3, width=2, levels=2, fusion=fusion, distance=distance).eval()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 7])
def test_a_slice_stands_between_its_neighbours_and_at_a_border_for_them(axis: int, distance: int) -> None:
    volumes = noise(2, 5, 6, 7)
    index = torch.tensor([0, 3, 4])
    found = neighbours(volumes, axis, index, distance)
    expected = []
    for volume in volumes.numpy():
        for i in index.tolist():
            last = volume.shape[axis] - 1
            places = (max(0, i - distance), i, min(last, i + distance))
            expected.append(np.stack([np.take(volume, place, axis=axis) for place in places]))
    np.testing.assert_array_equal(found.numpy(), np.stack(expected))


def test_fused_by_the_mean_or_the_largest() -> None:
    answers = torch.softmax(3 * noise(3, 2, 4, 5, 6), dim=2)
    mean, most = fused(answers, "mean"), fused(answers, "max")
    for n, *place in np.ndindex(2, 5, 6):
        here = answers[:, n, :, place[0], place[1]].numpy()
        largest = np.array([max(here[:, k]) for k in range(4)])
        np.testing.assert_allclose(mean[n, :, place[0], place[1]], here.sum(axis=0) / 3, rtol=1e-6)
        np.testing.assert_allclose(most[n, :, place[0], place[1]], largest / largest.sum(), rtol=1e-6)


def test_fused_by_votes_the_mean_decides_where_nobody_wins() -> None:
    answers = torch.softmax(3 * noise(3, 2, 4, 5, 6), dim=2)
    found = fused(answers, "plurality")
    ties = 0
    for n, *place in np.ndindex(2, 5, 6):
        here = answers[:, n, :, place[0], place[1]].numpy()
        votes = np.bincount(here.argmax(axis=1), minlength=4)
        tied = (votes == votes.max()).sum() > 1
        ties += int(tied)
        np.testing.assert_allclose(found[n, :, place[0], place[1]], here.mean(axis=0) if tied else votes / 3, rtol=1e-6)
    assert 0 < ties < 60


@pytest.mark.parametrize(
    ("answers", "mean", "most", "plurality"),
    [
        # Two say class 1, barely; one says class 0, surely.
        ([[0.45, 0.55, 0.0], [0.45, 0.55, 0.0], [0.9, 0.1, 0.0]], 0, 0, 1),
        # Everyone says another class: the mean decides.
        ([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.05, 0.05, 0.9]], 2, 2, 2),
        ([[0.5, 0.4, 0.1], [0.0, 0.6, 0.4], [0.0, 0.45, 0.55]], 1, 1, 1),
        # All agree.
        ([[0.1, 0.1, 0.8]] * 3, 2, 2, 2),
    ],
)
def test_who_wins_by_hand(answers: list[list[float]], mean: int, most: int, plurality: int) -> None:
    given = torch.tensor(answers)[:, None, :, None]
    winners = [int(fused(given, kind).argmax(dim=1)) for kind in ("mean", "max", "plurality")]
    assert winners == [mean, most, plurality]


@pytest.mark.parametrize("fusion", ["mean", "max", "plurality"])
def test_fused_probabilities_sum_to_1(fusion: Fusion) -> None:
    answers = torch.softmax(3 * noise(3, 2, 4, 5), dim=2)
    assert torch.allclose(fused(answers, fusion).sum(dim=1), torch.ones(2, 5))
    alone = torch.ones(3, 1, 1, 4)
    assert torch.equal(fused(alone, fusion), alone[0])


@pytest.mark.parametrize("fusion", ["mean", "max", "plurality"])
@torch.no_grad()
def test_a_volume_is_what_its_slices_are_one_by_one(fusion: Fusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_unets, "AT_ONCE", 400)
    # More slices than go through a network at once, and of every axis another number.
    network, volumes = small(fusion), noise(2, 1, 12, 8, 10)
    answers = torch.zeros(3, 2, 3, 12, 8, 10)
    for axis in range(3):
        for i in range(volumes.shape[axis + 2]):
            slices = neighbours(volumes[:, 0], axis, torch.tensor([i]), 2)
            probabilities = functional.softmax(network.plane_logits(slices, axis), dim=1)
            answers[axis].select(axis + 2, i).copy_(probabilities)
    found = functional.softmax(network(volumes), dim=1)
    assert torch.allclose(found, fused(answers, fusion), atol=1e-5)


@torch.no_grad()
def test_what_it_gives_are_logarithms_of_probabilities() -> None:
    for fusion in ("mean", "max", "plurality"):
        logits = small(fusion)(noise(1, 1, 8, 8, 8))  # type: ignore[arg-type]
        assert logits.isfinite().all()
        assert torch.allclose(logits.exp().sum(dim=1), torch.ones(1, 8, 8, 8), atol=1e-5)


@torch.no_grad()
def test_neighbours_lie_as_far_off_as_it_is_told() -> None:
    near, far = small(distance=1), small(distance=3)
    volumes = noise(1, 1, 12, 8, 8)
    assert not torch.allclose(near(volumes), far(volumes))
    flat = torch.full((1, 1, 8, 8, 8), 0.3)
    assert torch.equal(near(flat), far(flat))
