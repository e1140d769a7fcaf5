from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from musclekit.errors import CheckpointError, FormatError, MissingFileError, OutputError, SchemaError
from musclekit.neural.cards import SegmenterCard, TranslatorCard
from musclekit.neural.checkpoint import (
    load_checkpoint,
    read_card,
    read_tensors,
    save_checkpoint,
    weights_hash,
    write_tensors,
)
from musclekit.schemas import check_schema
from tests.tiny_checkpoint import tiny_card, tiny_checkpoint, tiny_generator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "best.pt")


def refusal(
    path: Path, error: type[Exception], kind: type[TranslatorCard] | type[SegmenterCard] = TranslatorCard
) -> str:
    """The message with which a file is refused; it is one line that names the file."""
    with pytest.raises(error) as caught:
        load_checkpoint(path, kind)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def changed(path: Path, **card: Any) -> Path:
    """Write the file anew with other entries in its card, hashed as if it had been meant so."""
    content = read_tensors(path)
    text = json.dumps({**json.loads(content["card"]), **card})
    write_tensors(path, {**content, "card": text, "card_sha256": hashlib.sha256(text.encode()).hexdigest()})
    return path


def test_network_and_card_come_back(path: Path) -> None:
    network, card = load_checkpoint(path, TranslatorCard)
    expected = tiny_generator()
    assert {name: value.tolist() for name, value in network.state_dict().items()} == {
        name: value.tolist() for name, value in expected.state_dict().items()
    }
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    assert card.weights_sha256 == weights_hash(expected.state_dict())
    assert card == TranslatorCard.from_data(card.as_data())
    same = {**card.as_data(), "weights_sha256": ""}
    assert same == tiny_card().as_data()
    assert read_card(path, TranslatorCard) == card


@pytest.mark.parametrize("direction", ["hard-to-easy", "easy-to-hard", "mr-to-ct", "ct-to-mr"])
def test_a_card_follows_its_schema_and_knows_its_direction(tmp_path: Path, direction: str) -> None:
    card = read_card(tiny_checkpoint(tmp_path / "x.pt", direction), TranslatorCard)
    check_schema(card.as_data(), "translator_card", "the card")
    assert card.direction == direction
    assert card.shares_scale == ("mr" not in direction)
    assert card.monotone == ("darker" if direction == "hard-to-easy" else None)


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path: Path) -> None:
    generator = tiny_generator()
    save_checkpoint(tmp_path / "whole.pt", generator, tiny_card())
    save_checkpoint(tmp_path / "half.pt", generator, tiny_card(), half=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("half.pt", "whole.pt")]
    assert sizes[0] < 0.6 * sizes[1]
    network, _ = load_checkpoint(tmp_path / "half.pt", TranslatorCard)
    for before, after in zip(generator.parameters(), network.parameters(), strict=True):
        assert after.dtype == torch.float32
        assert torch.allclose(before, after, rtol=1e-3, atol=1e-6)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt", MissingFileError) == "no such file"


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95, 0.999])
def test_a_file_that_is_cut_short_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refusal(path, FormatError) == "no checkpoint, or one that is cut short"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("weights will follow\n" * 100)
    assert refusal(tmp_path / "notes.pt", FormatError) == "no checkpoint, or one that is cut short"
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert refusal(tmp_path / "tensor.pt", FormatError) == "no checkpoint: it holds a Tensor"
    write_tensors(tmp_path / "state.pt", {"epoch": 3, "generator": {"a": torch.zeros(3)}})
    assert refusal(tmp_path / "state.pt", FormatError) == "no checkpoint of a network: it holds no card and weights"
    write_tensors(tmp_path / "card.pt", {"card": "{", "weights": {}})
    assert refusal(tmp_path / "card.pt", FormatError).startswith("the card is not JSON: ")
    write_tensors(tmp_path / "list.pt", {"card": "[]", "weights": {}})
    assert refusal(tmp_path / "list.pt", FormatError) == "the card is not an object"


class Harmful:
    """Unpickled it would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("as_torch", [True, False])
def test_nothing_in_a_file_is_ever_run(tmp_path: Path, as_torch: bool) -> None:
    path, mark = tmp_path / "bad.pt", tmp_path / "was-run"
    if as_torch:
        torch.save({"card": Harmful(mark), "weights": {}}, path)
        message = refusal(path, FormatError)
        assert message.startswith("holds more than numbers and text, or is damaged; it was not opened")
    else:
        path.write_bytes(pickle.dumps(Harmful(mark)))
        assert refusal(path, FormatError) == "no checkpoint, or one that is cut short"
    assert not mark.exists()


def test_weights_that_were_changed_are_refused(path: Path) -> None:
    content = read_tensors(path)
    name = next(iter(content["weights"]))
    content["weights"][name].view(-1)[0] += 1e-3
    write_tensors(path, content)
    assert refusal(path, CheckpointError) == "the file was changed after it was written: its hashes do not fit"


def test_a_card_that_was_changed_is_refused(path: Path) -> None:
    content = read_tensors(path)
    card = json.loads(content["card"])
    write_tensors(path, {**content, "card": json.dumps({**card, "spacing_mm": 1.0})})
    assert refusal(path, CheckpointError) == "the file was changed after it was written: its hashes do not fit"


def test_a_flipped_bit_does_not_pass(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Somewhere in the middle lie weights.
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises((CheckpointError, FormatError), match=r"best\.pt: "):
        load_checkpoint(path, TranslatorCard)


def test_another_kind_is_refused(path: Path) -> None:
    assert refusal(path, CheckpointError, SegmenterCard) == "a checkpoint of kind 'translator', not 'segmenter'"
    changed(path, kind="segmenter")
    assert refusal(path, CheckpointError) == "a checkpoint of kind 'segmenter', not 'translator'"


def test_a_later_format_is_refused_with_the_version_that_wrote_it(path: Path) -> None:
    message = refusal(changed(path, format=2, musclekit="9.9"), CheckpointError)
    assert message.startswith("a card of format 2, and musclekit ")
    assert message.endswith("reads format 1; it was written by musclekit 9.9")


def test_a_card_that_breaks_its_schema_is_refused(path: Path) -> None:
    assert refusal(changed(path, spacing_mm=-1), CheckpointError).startswith("the card: at [spacing_mm]: -1 is")
    with pytest.raises(SchemaError, match=r"the card of x\.pt: at \[size\]: 0 is less than the minimum of 1"):
        save_checkpoint(path.with_name("x.pt"), tiny_generator(), tiny_card(size=0))
    assert not path.with_name("x.pt").exists()


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({"name": "resnet-generator", "parameters": {"width": 16, "blocks": 3}}, "size mismatch"),
        ({"name": "resnet-generator", "parameters": {"width": 8, "blocks": 4}}, "Missing key"),
    ],
)
def test_weights_that_do_not_fit_the_network_are_refused(path: Path, network: dict[str, Any], reason: str) -> None:
    message = refusal(changed(path, network=network), CheckpointError)
    assert message.startswith("the weights do not fit the network of the card: ")
    assert reason in message


def test_a_full_disk_leaves_the_last_good_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def write_a_little(self: Path, data: Any) -> int:
        with self.open("wb") as stream:
            stream.write(bytes(data)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_a_little)
    with pytest.raises(OutputError, match=r"best\.pt: the disk is full"):
        save_checkpoint(path, tiny_generator(seed=1), tiny_card())
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["best.pt"]
    load_checkpoint(path, TranslatorCard)


def test_the_hash_is_that_of_the_weights_wherever_they_lie(path: Path, tmp_path: Path) -> None:
    weights = load_checkpoint(path, TranslatorCard)[0].state_dict()
    turned = dict(reversed(list(weights.items())))
    assert weights_hash(turned) == weights_hash(weights)
    renamed = {f"x{name}": value for name, value in weights.items()}
    assert weights_hash(renamed) != weights_hash(weights)
    assert weights_hash({name: value.half() for name, value in weights.items()}) != weights_hash(weights)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": {"name": "resnet-generator", "parameters": {"depth": 8}}}, "no parameter 'depth'"),
        ({"network": {"name": "u-net-9000", "parameters": {}}}, "unknown network 'u-net-9000'"),
        ({"network": {"name": "resnet-generator", "parameters": {"width": 8, "in_channels": 2}}}, "cannot be used"),
        ({"network": {"name": "resnet-generator", "parameters": {"width": 8, "out_channels": 2}}}, "makes no images"),
        ({"network": {"name": "patch-discriminator", "parameters": {}}}, "patch-discriminator, makes no images"),
        ({"multiple": 3}, "makes no images of the card's size and multiple"),
    ],
)
def test_a_network_that_makes_no_images_of_images_is_refused(path: Path, changes: dict[str, Any], reason: str) -> None:
    message = refusal(changed(path, **changes), CheckpointError)
    assert message.startswith("the network of the card")
    assert reason in message


def test_weights_that_are_no_plain_tensors_are_refused(path: Path) -> None:
    content = read_tensors(path)
    name = next(iter(content["weights"]))
    content["weights"][name] = content["weights"][name].to_sparse()
    write_tensors(path, content)
    assert refusal(path, FormatError) == "no checkpoint of a network: it holds no card and weights"


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert refusal(tmp_path, FormatError) == "a folder, not the file of a checkpoint"
