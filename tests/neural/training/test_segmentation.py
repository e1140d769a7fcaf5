from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from musclekit.errors import (
    CheckpointError,
    FormatError,
    GeometryError,
    InputError,
    LabelError,
    LeakError,
    OutputError,
    ParameterError,
    TrainingError,
)
from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.neural import networks, segmentation_losses
from musclekit.neural.augmentation import Augmentation
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import load_checkpoint, read_tensors, weights_hash
from musclekit.neural.labelled import UNLABELLED, LabelledScan
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.training import segmentation
from musclekit.neural.training.ranks import Ranks
from musclekit.neural.training.running import check_share, last_epoch, seeded_threads
from musclekit.neural.training.segmentation import train_segmenter, validation_dice
from musclekit.neural.training.segmenter_plan import check_segmenter_plan
from musclekit.neural.training.start import Start
from musclekit.neural.windows import CT_WINDOW
from tests.neural.training.labelled_examples import CUBES, SCANS, TINY, VALIDATION, scan, tiny
from tests.neural.training.one_of_several_segmenters import PLANS
from tests.tiny_segmenter import SMALL, tiny_segmenter

ROOT = Path(__file__).parents[3]
ALONE = Ranks(0, 1, torch.device("cpu"))
FILES = ("network.pt", "state.pt", "losses.csv", "sheets/epoch_0002.png", "sheets/epoch_0004.png")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny plan was trained in one go; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    train_segmenter(TINY, SCANS, folder, validation=VALIDATION)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_bytes(one: Path, other: Path) -> dict[str, bool]:
    return {name: (one / name).read_bytes() == (other / name).read_bytes() for name in FILES}


def losses(folder: Path) -> list[dict[str, float]]:
    with (folder / "losses.csv").open(encoding="utf-8", newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def interrupt_at(step: int) -> segmentation.Progress:
    def progress(done: float, total: float, what: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress


# Stopped and gone on with.


def test_the_same_training_twice_gives_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION)
    assert all(same_bytes(whole, tmp_path).values())


@pytest.mark.parametrize("until", [1, 2, 3])
def test_some_epochs_and_the_rest_are_all(whole: Path, tmp_path: Path, until: int) -> None:
    first = train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION, until=until)
    assert first.epochs_done == len(losses(tmp_path)) == until
    second = train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION)
    assert second.epochs_done == len(losses(tmp_path)) == 4
    assert all(same_bytes(whole, tmp_path).values())


def test_an_interrupted_training_keeps_its_last_whole_epoch(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION, progress=interrupt_at(13))  # 5 steps an epoch
    assert len(losses(tmp_path)) == 2
    assert load_checkpoint(tmp_path / "network.pt", SegmenterCard)[1].schedule["epochs_done"] == 2
    assert not list(tmp_path.glob(".*"))
    train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION)
    assert all(same_bytes(whole, tmp_path).values())


def test_what_was_lost_beside_the_state_is_written_again(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for name in ("network.pt", "losses.csv"):
        (tmp_path / name).unlink()
    assert train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION).epochs_done == 4
    assert all(same_bytes(whole, tmp_path).values())


VOLUMES = {"name": "unet-3d", "width": 2, "levels": 2}
PLANES = {"name": "unet-2.5d", "width": 2, "levels": 2}


@pytest.mark.parametrize(
    ("changes", "scans"),
    [
        ({"precision": "bfloat16"}, SCANS),
        ({"channels_last": True, "optimiser": "adamw", "weight_decay": 0.01}, SCANS),
        ({"network": {"name": "bayesian-unet", "width": 2, "depth": 2}, "decay": "inverse-time"}, SCANS),
        ({"context": 1, "steps": 3, "batch": 4, "augmentation": Augmentation()}, SCANS),
        ({"network": VOLUMES, "block": (8, 8, 8), "decay": "none", "sheet_every": 1, "channels_last": True}, CUBES),
        ({"network": PLANES, "steps": 2}, CUBES),
    ],
)  # fmt: skip
def test_other_ways_to_train_go_on_as_if_never_stopped_too(changes: dict[str, Any], scans: Any, tmp_path: Path) -> None:
    plan = tiny(**{"epochs": 2, **changes})
    train_segmenter(plan, scans, tmp_path / "whole")
    train_segmenter(plan, scans, tmp_path / "parts", until=1)
    trained = train_segmenter(plan, scans, tmp_path / "parts")
    assert (tmp_path / "whole/network.pt").read_bytes() == (tmp_path / "parts/network.pt").read_bytes()
    assert (tmp_path / "whole/losses.csv").read_bytes() == (tmp_path / "parts/losses.csv").read_bytes()
    network, card = load_checkpoint(tmp_path / "parts/network.pt", SegmenterCard)
    assert all(not value.is_floating_point() or value.dtype == torch.float32 for value in network.state_dict().values())
    assert (card.context, trained.best_epoch, trained.stopped_early) == (plan.context, 2, False)


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train_segmenter(tiny(epochs=1, steps=1), SCANS, tmp_path, threads=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 1
    with pytest.raises(KeyError), seeded_threads(0, 2):
        raise KeyError
    assert torch.get_num_threads() == 1


# What is written.


def test_every_loss_stands_raw_and_weighted_in_the_table(tmp_path: Path) -> None:
    plan = tiny(epochs=1, loss=SegmentationLoss(cross_entropy=0.5, dice=2.0))
    trained = train_segmenter(plan, SCANS, tmp_path, validation=VALIDATION)
    (row,) = losses(tmp_path)
    assert list(row) == [
        "epoch", "learning_rate", "cross_entropy", "dice", "gradient_norm", "weighted_cross_entropy", "weighted_dice",
        "loss", "validation_dice",
    ]  # fmt: skip
    assert (row["weighted_cross_entropy"], row["weighted_dice"]) == (0.5 * row["cross_entropy"], 2 * row["dice"])
    assert row["loss"] == row["weighted_cross_entropy"] + row["weighted_dice"]
    assert trained.rows == (row,)
    assert trained.card.scores == {"validation_dice": row["validation_dice"]}


def test_a_term_of_weight_0_and_a_validation_of_nobody_are_not_in_the_table(tmp_path: Path) -> None:
    trained = train_segmenter(tiny(epochs=1, loss=SegmentationLoss(dice=0)), SCANS, tmp_path)
    assert list(trained.rows[0]) == [
        "epoch", "learning_rate", "cross_entropy", "gradient_norm", "weighted_cross_entropy", "loss",
    ]  # fmt: skip
    assert trained.card.scores == {}


def test_the_rate_of_the_table_is_that_of_the_last_update(whole: Path) -> None:
    assert [row["epoch"] for row in losses(whole)] == [1, 2, 3, 4]
    np.testing.assert_allclose([row["learning_rate"] for row in losses(whole)], [1e-2, 1e-2, 1e-2 * 2 / 3, 1e-2 / 3])


def test_the_card_says_what_was_trained_on_whom(whole: Path) -> None:
    network, card = load_checkpoint(whole / "network.pt", SegmenterCard)
    rows = losses(whole)
    best = max(range(4), key=lambda n: rows[n]["validation_dice"])
    assert (card.name, card.label_set, card.view) == ("unet-2d", label_set("compartment"), TINY.view)
    assert card.network == {
        "name": "unet-2d", "parameters": {"in_channels": 1, "out_channels": 3, "width": 4, "levels": 2},
    }  # fmt: skip
    assert card.windows == {Contrast.CT: CT_WINDOW}
    assert (card.training_subjects, card.validation_subjects, card.seed) == (("a", "b"), ("v",), 5)
    assert (card.schedule["epochs_done"], card.schedule["best_epoch"]) == (4, best + 1)
    assert card.scores == {"validation_dice": rows[best]["validation_dice"]}
    least, most = card.deciles[Contrast.CT]
    both = np.array([one.deciles for one in SCANS])
    np.testing.assert_allclose([least, most], [both.min(axis=0), both.max(axis=0)])
    assert SegmenterCard.from_data(json.loads(json.dumps(card.as_data()))) == card
    assert card.weights_sha256 == weights_hash(network.state_dict())


def test_a_plan_names_its_segmenter(tmp_path: Path) -> None:
    plan = tiny(epochs=1, name="my own", data="phantoms", licence="CC0", limits=("It is tiny.",), sheet_every=0)
    card = train_segmenter(plan, SCANS, tmp_path).card
    assert (card.name, card.data, card.licence, card.limits) == ("my own", "phantoms", "CC0", ("It is tiny.",))
    assert not (tmp_path / "sheets").exists()
    assert card.schedule["best_epoch"] == 1


def test_it_learns(tmp_path: Path) -> None:
    plan = tiny(epochs=25, sheet_every=0, decay="polynomial")
    trained = train_segmenter(plan, SCANS, tmp_path, validation=VALIDATION)
    assert trained.rows[-1]["loss"] < trained.rows[0]["loss"] / 2
    assert max(row["validation_dice"] for row in trained.rows) > 0.9
    assert not trained.network.training
    assert not any(weights.requires_grad for weights in trained.network.parameters())
    assert validation_dice(trained.network, plan, VALIDATION, ALONE).min() > 0.85


def test_flips_exchange_the_classes_of_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def seen(*args: Any, **options: Any) -> Any:
        given.append(options["exchange"])
        return args[:2]

    monkeypatch.setattr(segmentation, "augmented", seen)
    sided = tiny(labels=label_set("muscle-sided"), epochs=1, steps=1)
    train_segmenter(sided, SCANS, tmp_path / "sided")
    train_segmenter(tiny(epochs=1, steps=1), SCANS, tmp_path / "plain")
    assert given == [[0, 2, 1], None]


# The best epoch, and when to stop.


def scripted(scores: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the validation cases say these scores, one epoch after the other."""
    after = iter(scores)
    monkeypatch.setattr(segmentation, "validation_dice", lambda *_: np.full(2, next(after)))


def test_without_a_better_score_the_training_stops_and_keeps_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([0.2, 0.5, 0.4, 0.5, 0.9], monkeypatch)
    trained = train_segmenter(tiny(epochs=9, patience=2), SCANS, tmp_path, validation=VALIDATION)
    assert (trained.epochs_done, trained.best_epoch, trained.stopped_early) == (4, 2, True)
    assert trained.card.scores == {"validation_dice": 0.5}
    assert (trained.card.schedule["epochs_done"], trained.card.schedule["best_epoch"]) == (4, 2)
    scripted([0.2, 0.5], monkeypatch)
    second = train_segmenter(tiny(epochs=9, patience=2), SCANS, tmp_path / "2", validation=VALIDATION, until=2)
    assert weights_hash(trained.network.state_dict()) == weights_hash(second.network.state_dict())
    assert trained.card.weights_sha256 == "" or trained.card.weights_sha256 == second.card.weights_sha256
    kept = load_checkpoint(tmp_path / "network.pt", SegmenterCard)[0]
    assert weights_hash(kept.state_dict()) == weights_hash(second.network.state_dict())
    # Asked again, it stays where it stopped.
    again = train_segmenter(tiny(epochs=9, patience=2), SCANS, tmp_path, validation=VALIDATION)
    assert (again.epochs_done, again.best_epoch, again.stopped_early) == (4, 2, True)


def test_an_equal_score_is_not_a_better_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted([0.0] * 9, monkeypatch)
    trained = train_segmenter(tiny(epochs=9, patience=3), SCANS, tmp_path, validation=VALIDATION)
    assert (trained.epochs_done, trained.best_epoch, trained.stopped_early) == (4, 1, True)


def test_without_patience_it_goes_on_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted([0.2, 0.9, 0.4, 0.5], monkeypatch)
    trained = train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION)
    assert (trained.epochs_done, trained.best_epoch, trained.stopped_early) == (4, 2, False)


class Given(nn.Module):
    """Says what stands in the image: -1 is class 0, 0 is class 1, 1 is class 2."""

    dimensions, multiple, least = 2, 1, 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wanted = images.round().long()[:, 0] + 1
        logits: torch.Tensor = 9.0 * nn.functional.one_hot(wanted, 3).movedim(-1, 1)
        return logits


def test_the_dice_of_the_validation_by_hand() -> None:
    def labelled(found: list[list[int]], wanted: list[list[int]]) -> LabelledScan:
        one = VALIDATION[0]
        views = [
            replace(one.views[0], image=np.array([[f]], np.float16) - 1, classes=np.array([[w]], np.uint8))
            for f, w in zip(found, wanted, strict=True)
        ]
        return replace(one, views=tuple(views))

    # Of two views of one scan voxels are counted together: class 1 is found in 4, wanted in 3, common to 2.
    first = labelled([[1, 1, 1, 0], [1, 0, 0, 2]], [[1, 0, 0, 0], [1, 1, 0, 2]])
    # Nothing is known of the last one; class 1 is neither found nor wanted.
    second = labelled([[0, 2, 2, 1]], [[0, 2, 0, UNLABELLED]])
    scores = validation_dice(Given(), tiny(), [first, second], ALONE)
    assert scores == pytest.approx([2 * 2 / 7, (1 + 2 / 3) / 2])
    assert validation_dice(Given(), tiny(), [second], ALONE)[1] == pytest.approx(2 / 3)
    assert np.isnan(validation_dice(Given(), tiny(), [second], ALONE)[0])
    # Found where nobody wants it, it is worth nothing.
    third = labelled([[0, 1, 0, 2]], [[0, 0, 0, 2]])
    assert validation_dice(Given(), tiny(), [third], ALONE).tolist() == [0, 1]


# What is refused.


def test_a_class_that_nobody_shows_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="the cases to train on show no bone: a network cannot learn what it is never"):
        train_segmenter(TINY, [scan("a", classes=2)], tmp_path)
    with pytest.raises(LabelError, match="the cases to train on show no compartment, bone"):
        train_segmenter(TINY, [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_subject_is_not_learnt_from_and_validated_on(tmp_path: Path) -> None:
    with pytest.raises(LeakError, match="subject 'b' stands among those trained on and in the validation"):
        train_segmenter(TINY, SCANS, tmp_path, validation=[*VALIDATION, scan("b", seed=9)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("plan", "scans", "validation", "differing"),
    [
        (tiny(seed=6), SCANS, VALIDATION, "seed"),
        (tiny(loss=SegmentationLoss(dice=2)), SCANS, VALIDATION, "loss"),
        (tiny(batch=1, precision="bfloat16"), SCANS, VALIDATION, "schedule, precision"),
        (TINY, (scan("a", seed=1), scan("b", seed=4, views=2)), VALIDATION, "scans trained on"),
        (TINY, SCANS, (), "validation scans"),
    ],
)
def test_another_training_in_the_folder_is_refused(
    whole: Path, plan: Any, scans: Any, validation: Any, differing: str
) -> None:
    before = {name: (whole / name).read_bytes() for name in FILES}
    with pytest.raises(InputError) as caught:
        train_segmenter(plan, scans, whole, validation=validation)
    assert f"holds another training (it differs in: {differing}); results are never mixed" in str(caught.value)
    assert before == {name: (whole / name).read_bytes() for name in FILES}


def test_what_no_number_depends_on_may_change(whole: Path) -> None:
    plan = tiny(sheet_every=0, cases=Path("elsewhere.csv"))
    assert train_segmenter(plan, SCANS, whole, validation=VALIDATION).epochs_done == 4


def test_a_checkpoint_without_its_state_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "network.pt").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"holds network\.pt but no state\.pt to go on from; choose another folder"):
        train_segmenter(TINY, SCANS, tmp_path)
    assert (tmp_path / "network.pt").read_bytes() == b"precious"


def test_a_damaged_state_is_refused(whole: Path, tmp_path: Path) -> None:
    raw = (whole / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(FormatError, match="cut short"):
        train_segmenter(TINY, SCANS, tmp_path)
    (tmp_path / "state.pt").write_bytes((whole / "network.pt").read_bytes())
    with pytest.raises(FormatError, match="no state of a training, or a damaged one"):
        train_segmenter(TINY, SCANS, tmp_path)


def test_slices_of_three_planes_need_views_of_one_size(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="slices of three planes are taken whole: every view has to have one size"):
        train_segmenter(tiny(network=PLANES), (CUBES[0], scan("b", planes=12)), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:7"}, "device 'cuda:7' is not here; there is: cpu"),
        ({"until": 0}, "until must be a whole number of at least 1, not 0"),
        ({"threads": 0}, "threads must be a whole number of at least 1, not 0"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        train_segmenter(TINY, SCANS, tmp_path, **arguments)
    assert message in str(caught.value)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ParameterError, match="a batch of 3 cannot be shared between 2 processes: make it"):
        check_share(3, Ranks(0, 2, torch.device("cpu")))
    check_share(4, Ranks(0, 2, torch.device("cpu")))
    assert [last_epoch(5, until) for until in (None, 3, 9)] == [5, 3, 5]


# What goes wrong on the way.


def test_a_loss_that_is_no_number_stops_the_training(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = segmentation_losses.soft_dice, iter(range(100))

    def spoilt(*args: Any, **options: Any) -> torch.Tensor:
        value = real(*args, **options)
        return value * float("nan") if next(calls) == 11 else value

    monkeypatch.setattr(segmentation_losses, "soft_dice", spoilt)
    with pytest.raises(TrainingError) as caught:
        train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION)
    assert str(caught.value) == (
        f"the training was stopped in epoch 3, step 2: dice is nan; {tmp_path / 'state.pt'} holds epoch 2. Lower the "
        "learning rate, or train in float32, in another folder"
    )
    kept = load_checkpoint(tmp_path / "network.pt", SegmenterCard)[0]
    assert all(bool(value.isfinite().all()) for value in kept.state_dict().values())
    monkeypatch.undo()
    train_segmenter(TINY, SCANS, tmp_path, validation=VALIDATION)
    assert all(same_bytes(whole, tmp_path).values())


def test_it_may_stop_in_the_first_epoch(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"stopped in epoch 1, step 2: .* is nan; no epoch was finished"):
        train_segmenter(tiny(learning_rate=1e30), SCANS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_device_with_too_little_memory_keeps_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_segmenter(TINY, SCANS, tmp_path, until=1)
    before = (tmp_path / "state.pt").read_bytes()

    def too_large(*args: Any, **options: Any) -> torch.Tensor:
        return torch.empty(2**60)

    monkeypatch.setattr(segmentation_losses, "soft_dice", too_large)
    message = "device 'cpu' has too little memory: train with a smaller batch, smaller slices or blocks or a narrower"
    with pytest.raises(ParameterError, match=message):
        train_segmenter(TINY, SCANS, tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_a_full_disk_leaves_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_segmenter(TINY, SCANS, tmp_path, until=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="the disk is full"):
        train_segmenter(TINY, SCANS, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_progress_is_told_with_the_loss_of_the_moment(tmp_path: Path) -> None:
    told: list[tuple[float, float, str]] = []
    train_segmenter(tiny(epochs=2, steps=2), SCANS, tmp_path, progress=lambda *given: told.append(given))
    assert [line[:2] for line in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [line[2].partition(":")[0] for line in told] == ["epoch 1/2", "epoch 1/2", "epoch 2/2", "epoch 2/2"]
    assert all(float(line[2].rpartition(" ")[2]) > 0 for line in told)


# Several processes.


def test_two_processes_train_one_network_and_go_on_as_if_never_stopped(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, "-m", "tests.neural.training.one_of_several_segmenters", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for folder in ("whole", "parts", "shared"):
        ranks = [read_tensors(tmp_path / folder / f"rank_{rank}.pt") for rank in (0, 1)]
        assert ranks[0].keys() == ranks[1].keys()
        assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    for name in ("network.pt", "state.pt", "losses.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    # A batch is as large whoever shares it: two learn what one learns, but for rounding.
    trained = train_segmenter(PLANS["instance norms"], SCANS, tmp_path / "one", validation=VALIDATION, until=2)
    two = pd.read_csv(tmp_path / "shared" / "losses.csv")
    pd.testing.assert_frame_equal(two, pd.DataFrame(trained.rows), check_dtype=False, rtol=1e-3)
    with pytest.raises(InputError, match=r"holds another training \(it differs in: processes\)"):
        train_segmenter(PLANS["instance norms"], SCANS, tmp_path / "shared", validation=VALIDATION)


# Started from another network.


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_tensors(folder / "network.pt")["weights"])


def test_it_starts_from_what_another_training_reached(whole: Path, tmp_path: Path) -> None:
    plan = tiny(start=str(whole / "network.pt"), epochs=1, learning_rate=1e-6)
    found = train_segmenter(plan, SCANS, tmp_path, validation=VALIDATION)
    before, after = weights_of(whole), weights_of(tmp_path)
    # Means and deviations of what was seen go on changing.
    learnt = [name for name in before if name.endswith(("weight", "bias"))]
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in learnt)
    card = load_checkpoint(whole / "network.pt", SegmenterCard)[1]
    assert found.card.start == {"name": "unet-2d", "weights_sha256": card.weights_sha256}
    assert found.card.family != card.family


def test_of_another_label_set_it_takes_what_has_the_same_name(tmp_path: Path) -> None:
    start = Start(str(tiny_segmenter(tmp_path / "one.pt", "unet-2d", seed=1)))
    labels = label_set("thigh-10")
    network = networks.build("unet-2d", **{**start.card.network["parameters"], "out_channels": len(labels) + 1})
    drawn = network.state_dict()["head.weight"].clone()
    start.take(network, labels)
    after, before = network.state_dict(), start.network.state_dict()
    names = [label.full_name for label in start.card.label_set]
    assert torch.equal(after["head.weight"][0], before["head.weight"][0])
    known = [label.full_name in names for label in labels]
    assert any(known)
    assert not all(known)
    for n, label in enumerate(labels, start=1):
        row = before["head.weight"][names.index(label.full_name) + 1] if known[n - 1] else drawn[n]
        assert torch.equal(after["head.weight"][n], row)
    assert all(torch.equal(after[name], before[name]) for name in after if not name.startswith("head"))


def test_whom_the_start_learnt_from_is_remembered_and_kept_apart(whole: Path, tmp_path: Path) -> None:
    plan = tiny(start=str(whole / "network.pt"), epochs=1)
    with pytest.raises(LeakError, match="the network to start from learnt from subject 'a', who is in the validation"):
        train_segmenter(plan, VALIDATION, tmp_path, validation=SCANS)
    found = train_segmenter(plan, [scan("new", seed=4)], tmp_path)
    assert found.card.training_subjects == ("a", "b", "new")
    assert found.card.validation_subjects == ("v",)


def test_a_training_goes_on_from_its_own_start_alone(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "network.pt", tmp_path / "one.pt")
    plan = tiny(start=str(whole / "network.pt"))
    train_segmenter(plan, SCANS, tmp_path / "run", until=1)
    train_segmenter(replace(plan, start=str(tmp_path / "one.pt")), SCANS, tmp_path / "run", until=2)
    train_segmenter(TINY, SCANS, tmp_path / "other", until=1)
    with pytest.raises(InputError, match="weights to start from"):
        train_segmenter(replace(plan, start=str(tmp_path / "other" / "network.pt")), SCANS, tmp_path / "run")


@pytest.mark.parametrize("name", [name for name in SMALL if name != "unet-2.5d"])
def test_every_network_starts_from_its_like(name: str, tmp_path: Path) -> None:
    start = Start(str(tiny_segmenter(tmp_path / "one.pt", name, seed=1)))
    parameters = start.card.network["parameters"]
    same = networks.build(name, **parameters)
    start.take(same, start.card.label_set)
    before = start.network.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in same.state_dict().items())
    fewer = networks.build(name, **{**parameters, "out_channels": 5})
    start.take(fewer, label_set("thigh-4"))
    found = fewer.state_dict()
    shared = [key for key in found if found[key].shape == before[key].shape]
    assert 0 < len(shared) < len(found)
    assert all(torch.equal(found[key], before[key]) for key in shared)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": "unet-2d", "width": 8, "levels": 2}, "its width is 4, not 8"),
        ({"name": "bayesian-unet", "width": 4, "depth": 2}, "name is unet-2d, not bayesian-unet"),
    ],
)
def test_another_network_is_no_start(whole: Path, network: dict[str, Any], message: str) -> None:
    plan = tiny(start=str(whole / "network.pt"), network=network)
    with pytest.raises(CheckpointError, match=message):
        check_segmenter_plan(plan)
