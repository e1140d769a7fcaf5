"""The options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Jobs", "LabelSetName", "Modality", "ModalityChoice", "Out", "Quiet", "Scans", "Series",
           "Settings", "Side", "SideChoice", "Strict", "words"]  # fmt: skip


class ModalityChoice(StrEnum):
    """What ``--modality`` takes."""

    AUTO = "auto"
    CT = "ct"
    MR = "mr"
    T1W = "t1w"
    T2W = "t2w"
    STIR = "stir"
    FAT = "fat"
    WATER = "water"


class SideChoice(StrEnum):
    """What ``--side`` takes."""

    LEFT = "left"
    RIGHT = "right"


Scans = Annotated[list[Path], typer.Argument(help="NIfTI, NRRD or MHA files, DICOM folders, or folders of these.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to; made if it is not there.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Scans worked on at the same time.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Modality = Annotated[
    ModalityChoice, typer.Option("--modality", help="What the scan is; auto reads DICOM tags, else guesses CT from HU.")
]
Series = Annotated[
    str | None,
    typer.Option("--series", help="DICOM series: its number, description or UID, where a folder has several."),
]
Side = Annotated[SideChoice | None, typer.Option("--side", help="Which leg, where the scan shows one.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a scan whose translation does not pass its safety checks.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
LabelSetName = Annotated[
    str | None,
    typer.Option(
        "--label-set", help="What the ids of label maps mean; read from the label tables beside them if left out."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, repeatable; translator__key=value for the translator.")
]


def words(text: str) -> tuple[str, ...]:
    """Return the words between the commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
