"""Weights that ship with musclekit, and the names they go by.

A name stands wherever a checkpoint is asked for: ``build("hard-to-easy", checkpoint="hard-to-easy-t1w")``. Beside each
checkpoint lies its card as JSON, to be read without torch. What may ship is said in ``docs/results_translation.md`` and
``docs/results_any_contrast.md``; ``benchmarks.release_weights`` and ``benchmarks.release_thigh`` put it here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musclekit.errors import MissingFileError, ParameterError

__all__ = ["FOLDER", "ShippedWeights", "checkpoint_path", "named_checkpoint", "shipped"]

#: Where checkpoints and cards lie.
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ShippedWeights:
    """A checkpoint in the package.

    Parameters
    ----------
    path : Path
        The file; its card lies beside it.
    """

    path: Path

    @property
    def name(self) -> str:
        """What it is called where a checkpoint is asked for; it begins with the method that takes it."""
        return self.path.stem

    @property
    def card(self) -> dict[str, Any]:
        """Its card as plain data, the same as in the checkpoint."""
        data: dict[str, Any] = json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))
        return data

    @property
    def summary(self) -> str:
        """One line for a list: contrast, what it learnt from, licence."""
        card = self.card
        contrasts = ", ".join(card["windows"]) if "windows" in card else card["source"]["contrast"]
        return f"weights for {contrasts}, learnt from {card['data']}; {card['licence']}"


def shipped() -> dict[str, ShippedWeights]:
    """Return what ships, by name."""
    return {path.stem: ShippedWeights(path) for path in sorted(FOLDER.glob("*.pt"))}


def checkpoint_path(checkpoint: str | Path) -> Path:
    """Return the file of a checkpoint: of the weights of that name if they ship, else the path as it is."""
    known = shipped()
    return known[checkpoint].path if isinstance(checkpoint, str) and checkpoint in known else Path(checkpoint)


def named_checkpoint(checkpoint: str | Path | None, method: str | None) -> tuple[Path, tuple[int, ...]]:
    """Return the file of the checkpoint that a method was given, and what stands for its content.

    Parameters
    ----------
    checkpoint : str or Path, optional
        See `checkpoint_path`.
    method : str, optional
        The name of the method, which names of weights that ship for it begin with.

    Raises
    ------
    ParameterError
        If none was given; the message names the weights that ship.
    MissingFileError
        If there is no such file.
    """
    if checkpoint is None:
        ready = ", ".join(name for name in shipped() if name.startswith(method or ""))
        raise ParameterError(
            f"'{method or 'network'}' needs a checkpoint: the file that training wrote"
            f"{f', or weights that ship: {ready}' if ready else ''}"
        )
    path = checkpoint_path(checkpoint)
    try:
        found = path.stat()
    except OSError:
        raise MissingFileError(f"{path}: no such file") from None
    return path, (found.st_ino, found.st_mtime_ns, found.st_size)
