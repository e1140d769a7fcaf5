from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from musclekit.errors import FormatError, InputError, OutputError, ParameterError, TrainingError
from musclekit.image import Contrast, Domain
from musclekit.neural import networks
from musclekit.neural.cards import TranslatorCard
from musclekit.neural.checkpoint import load_checkpoint, weights_hash
from musclekit.neural.objectives import TranslationLoss
from musclekit.neural.training import translation
from musclekit.neural.training.translation import train_translator
from musclekit.neural.windows import MR_WINDOW
from tests.neural.training.examples import SOURCE, TARGET, TINY, slices, tiny

FILES = ("forward.pt", "backward.pt", "state.pt", "losses.csv", "sheets/epoch_0002.png", "sheets/epoch_0004.png")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny plan was trained in one go; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    train_translator(TINY, SOURCE, TARGET, folder)
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


def stop_at(step: int) -> Callable[[float, float, str], None]:
    """Return a progress that is interrupted, as by Ctrl-C."""

    def progress(done: float, total: float, what: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress


def test_the_same_training_twice_gives_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert all(same_bytes(whole, tmp_path).values())


def test_two_epochs_and_two_more_are_four(whole: Path, tmp_path: Path) -> None:
    first = train_translator(TINY, SOURCE, TARGET, tmp_path, until=2)
    assert first.epochs_done == len(losses(tmp_path)) == 2
    second = train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert second.epochs_done == len(losses(tmp_path)) == 4
    assert all(same_bytes(whole, tmp_path).values())


def test_an_interrupted_training_keeps_its_last_whole_epoch(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_translator(TINY, SOURCE, TARGET, tmp_path, progress=stop_at(8))  # 3 steps an epoch
    assert len(losses(tmp_path)) == 2
    assert load_checkpoint(tmp_path / "forward.pt", TranslatorCard)[1].schedule["epochs_done"] == 2
    assert not list(tmp_path.glob(".*"))
    train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert all(same_bytes(whole, tmp_path).values())


def test_what_was_lost_beside_the_state_is_written_again(whole: Path, tmp_path: Path) -> None:
    train_translator(TINY, SOURCE, TARGET, tmp_path)
    for name in ("forward.pt", "losses.csv"):
        (tmp_path / name).unlink()
    assert train_translator(TINY, SOURCE, TARGET, tmp_path).epochs_done == 4
    assert all(same_bytes(whole, tmp_path).values())


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train_translator(TINY, SOURCE, TARGET, tmp_path, until=1, threads=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 1


def test_every_loss_stands_raw_and_weighted_in_the_table(whole: Path) -> None:
    rows = losses(whole)
    assert list(rows[0]) == [
        "epoch", "learning_rate", "gan", "weighted_gan", "cycle", "weighted_cycle", "identity", "weighted_identity",
        "relu", "weighted_relu", "generators", "gradient_norm", "discriminator_source", "discriminator_target",
        "spread_source", "spread_target",
    ]  # fmt: skip
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    np.testing.assert_allclose([row["learning_rate"] for row in rows], [2e-4, 2e-4, 2e-4 * 2 / 3, 2e-4 / 3])
    for row in rows:
        assert row["weighted_relu"] == 0.5 * row["relu"]
        assert row["generators"] == sum(row[f"weighted_{name}"] for name in ("gan", "cycle", "identity", "relu"))


def test_a_term_of_weight_0_is_not_in_the_table(tmp_path: Path) -> None:
    plan = tiny(loss=TranslationLoss(gan=0, identity=0, relu=0), constant=1, decay=0)
    trained = train_translator(plan, SOURCE, TARGET, tmp_path)
    assert list(trained.rows[0]) == [
        "epoch", "learning_rate", "cycle", "weighted_cycle", "generators", "gradient_norm", "spread_source",
        "spread_target",
    ]  # fmt: skip


def test_it_learns(tmp_path: Path) -> None:
    """Four dozen steps are enough to come back to the image one began with, and to darken what is hard."""
    plan = tiny(constant=60, decay=0, learning_rate=2e-3, sheet_every=0, loss=TranslationLoss(cycle=10.0))
    trained = train_translator(plan, SOURCE, TARGET, tmp_path)
    assert trained.rows[-1]["cycle"] < trained.rows[0]["cycle"] / 4
    with torch.no_grad():
        fake = trained.forward(torch.from_numpy(SOURCE.slices[:, None])).numpy()[:, 0]
    inside = SOURCE.slices > -0.9
    assert abs(fake[inside].mean() - 0.1) < abs(SOURCE.slices[inside].mean() - 0.1)
    assert not (tmp_path / "sheets").exists()


def test_both_ways_have_a_card(whole: Path) -> None:
    hard, easy = Domain(Contrast.T1W, "hard"), Domain(Contrast.T1W, "easy")
    forward, there = load_checkpoint(whole / "forward.pt", TranslatorCard)
    backward, back = load_checkpoint(whole / "backward.pt", TranslatorCard)
    assert (there.name, there.source, there.target) == ("hard-to-easy", hard, easy)
    assert (back.name, back.source, back.target) == ("easy-to-hard", easy, hard)
    assert (there.direction, back.direction) == ("hard-to-easy", "easy-to-hard")
    assert (there.monotone, back.monotone) == ("darker", "brighter")
    assert (there.target_scale, back.target_scale) == (TARGET.scale, SOURCE.scale)
    assert there.training_subjects == back.training_subjects[::-1] == (("s10", "s11"), ("s20", "s21"))
    assert there.windows == (MR_WINDOW, MR_WINDOW)
    assert (there.spacing_mm, there.size, there.multiple, there.seed) == (4.0, 32, 4, 5)
    assert there.network == {"name": "resnet-generator", "parameters": {"width": 4, "blocks": 1}}
    assert there.schedule["epochs_done"] == 4
    assert there.limits == ()
    assert weights_hash(forward.state_dict()) != weights_hash(backward.state_dict())


def test_a_domain_of_one_subject_stands_in_the_card(tmp_path: Path) -> None:
    plan = tiny(allow_single_subject=True, name="my own", limits=("It is tiny.",), constant=1, decay=0)
    train_translator(plan, slices(6, 0.6, 1, subjects=1), TARGET, tmp_path)
    there, back = (load_checkpoint(tmp_path / name, TranslatorCard)[1] for name in ("forward.pt", "backward.pt"))
    alone = "The source domain shows one subject: what was learnt of it may be that person's."
    assert there.limits == back.limits == ("It is tiny.", alone)
    assert there.schedule["allow_single_subject"] is True
    assert (there.name, back.name) == ("my own", "my own, back")


def test_the_state_holds_tensors_and_text_only(whole: Path) -> None:
    state = torch.load(whole / "state.pt", weights_only=True)
    about = json.loads(state["about"])
    assert about["identity"]["seed"] == 5
    assert len(about["rows"]) == 4
    assert set(state["networks"]) == {"forward", "backward", "source_critic", "target_critic"}


@pytest.mark.parametrize(
    ("plan", "source", "differing"),
    [
        (tiny(seed=6), SOURCE, "seed"),
        (tiny(loss=TranslationLoss(relu=1.0)), SOURCE, "loss"),
        (tiny(batch=1, precision="bfloat16"), SOURCE, "schedule, precision"),
        (TINY, slices(6, 0.61, 1), "slices of the source"),
    ],
)
def test_another_training_in_the_folder_is_refused(whole: Path, plan: Any, source: Any, differing: str) -> None:
    before = {name: (whole / name).read_bytes() for name in FILES}
    with pytest.raises(InputError) as caught:
        train_translator(plan, source, TARGET, whole)
    assert f"holds another training (it differs in: {differing}); results are never mixed" in str(caught.value)
    assert before == {name: (whole / name).read_bytes() for name in FILES}


def test_what_no_number_depends_on_may_change(whole: Path) -> None:
    assert train_translator(tiny(sheet_every=0), SOURCE, TARGET, whole).epochs_done == 4


def test_a_checkpoint_without_its_state_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "forward.pt").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"holds forward\.pt but no state\.pt to go on from; choose another folder"):
        train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert (tmp_path / "forward.pt").read_bytes() == b"precious"


def test_a_damaged_state_is_refused(whole: Path, tmp_path: Path) -> None:
    raw = (whole / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(FormatError, match="cut short"):
        train_translator(TINY, SOURCE, TARGET, tmp_path)
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 0x01
    (tmp_path / "state.pt").write_bytes(flipped)
    with pytest.raises(FormatError, match="the checkpoint is damaged, in its part"):
        train_translator(TINY, SOURCE, TARGET, tmp_path)
    (tmp_path / "state.pt").write_bytes((whole / "forward.pt").read_bytes())
    with pytest.raises(FormatError, match="no state of a training, or a damaged one"):
        train_translator(TINY, SOURCE, TARGET, tmp_path)


def test_a_loss_that_is_no_number_stops_the_training(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = translation.generator_terms, iter(range(100))

    def spoilt(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        terms = real(*args, **kwargs)
        return terms | {"cycle": terms["cycle"] * float("nan")} if next(calls) == 7 else terms

    monkeypatch.setattr(translation, "generator_terms", spoilt)
    with pytest.raises(TrainingError) as caught:
        train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert f"stopped in epoch 3, step 2: cycle is nan; {tmp_path / 'state.pt'} holds epoch 2." in str(caught.value)
    assert all(
        bool(value.isfinite().all())
        for value in load_checkpoint(tmp_path / "forward.pt", TranslatorCard)[0].parameters()
    )
    monkeypatch.undo()
    train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert all(same_bytes(whole, tmp_path).values())


def test_a_device_with_too_little_memory_keeps_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_translator(TINY, SOURCE, TARGET, tmp_path, until=1)
    before = (tmp_path / "state.pt").read_bytes()

    def too_large(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(translation, "generator_terms", too_large)
    with pytest.raises(ParameterError, match="device 'cpu' has too little memory: train with a smaller batch"):
        train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_it_may_stop_in_the_first_epoch(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no epoch was finished"):
        train_translator(tiny(learning_rate=1e38), SOURCE, TARGET, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_collapse_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(network: nn.Module, chance: torch.Generator) -> None:
        for weights in network.parameters():
            nn.init.zeros_(weights)

    monkeypatch.setattr(networks, "initialise", nothing)
    trained = train_translator(tiny(constant=1, decay=0, learning_rate=1e-9), SOURCE, TARGET, tmp_path)
    assert [line.split(" were")[0] for line in trained.warnings] == [
        "in epoch 1 fakes of the source",
        "in epoch 1 fakes of the target",
    ]


def test_a_full_disk_leaves_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_translator(TINY, SOURCE, TARGET, tmp_path, until=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="the disk is full"):
        train_translator(TINY, SOURCE, TARGET, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"device": "cuda:7"}, "device 'cuda:7' is not here; there is: cpu"),
        ({}, {"until": 0}, "until must be a whole number of at least 1, not 0"),
        ({}, {"threads": 0}, "threads must be a whole number of at least 1, not 0"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, changes: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        train_translator(tiny(**changes), SOURCE, TARGET, tmp_path, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"channels_last": True}, {"augment": False, "pool": 0}])
def test_other_ways_to_compute(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = tiny(constant=1, decay=1, **changes)
    train_translator(plan, SOURCE, TARGET, tmp_path / "whole")
    train_translator(plan, SOURCE, TARGET, tmp_path / "parts", until=1)
    train_translator(plan, SOURCE, TARGET, tmp_path / "parts")
    parts = [tmp_path / name / "forward.pt" for name in ("whole", "parts")]
    assert parts[0].read_bytes() == parts[1].read_bytes()
    assert all(
        value.dtype == torch.float32 for value in load_checkpoint(parts[0], TranslatorCard)[0].state_dict().values()
    )
