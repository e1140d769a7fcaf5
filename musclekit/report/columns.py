"""How the columns of the tables of measures and scores are shown to people: heading, unit, digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Column", "known_columns"]


@dataclass(frozen=True)
class Column:
    """One column as it is shown.

    Parameters
    ----------
    name : str
        In the data frame.
    heading : str
        For people.
    unit : str
        Under the heading; the unit after `factor`.
    digits : int
        After the decimal point.
    factor : float
        What a value is multiplied by before it is shown: 0.01 turns mm² into cm², 100 a fraction into percent.
    kind : {"key", "number", "status", "text"}
        A key says what a row is about and is never left out; a status is shown as a coloured word.
    meaning : str
        One line for the reader who asks what the number is.
    least : float, optional
        A positive number below it is shown as less than it: no p is 0.
    """

    name: str
    heading: str
    unit: str = ""
    digits: int = 1
    factor: float = 1.0
    kind: Literal["key", "number", "status", "text"] = "number"
    meaning: str = ""
    least: float | None = None

    def format(self, value: float) -> str:
        """Return the value as it is shown; thousands apart, a true minus sign."""
        shown = round(value * self.factor, self.digits) + 0.0  # adding zero turns -0.0 into 0.0
        text = f"{shown:,.{self.digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        if self.least is not None and 0 <= value * self.factor < self.least:
            return f"< {self.least:.{self.digits}f}"
        return text.replace("-", "\N{MINUS SIGN}")


#: The columns of `musclekit.quantify.Measures` and of a score table that a report shows, in this order.
COLUMNS = (
    Column("case_id", "Case", kind="key"),
    Column("method", "Method", kind="key"),
    Column("label", "Structure", kind="key"),
    Column("structure", "Structure", kind="key"),
    Column("side", "Side", kind="key"),
    Column("slice", "Slice", kind="key"),
    Column("level_mm", "Level", "mm", 0, meaning="Height of the slice in the world of the scanner, towards the head."),
    Column(
        "volume_ml", "Volume", "mL", meaning="Voxels times their volume, in the part of the thigh that was scanned."
    ),
    Column(
        "status",
        "Status",
        kind="status",
        meaning="ok; cut: touches the border of the field of view or stands in the first or last slice, so its size is "
        "a lower bound; absent: no voxel, so there is no number, rather than a zero; not a thigh: a slice in which the "
        "method labels nothing.",
    ),
    Column(
        "expected_dice",
        "Expected Dice",
        "",
        2,
        meaning="Dice that structures found with as much certainty had on slices whose truth is known.",
    ),
    Column(
        "csa_mm2",
        "CSA",
        "cm²",
        2,
        0.01,
        meaning="Cross-sectional area in one slice.",
    ),
    Column("csa_mean_mm2", "CSA mean", "cm²", 2, 0.01, meaning="Mean of the areas over the slices that show it."),
    Column("csa_max_mm2", "CSA max", "cm²", 2, 0.01, meaning="The largest area of all slices."),
    Column(
        "csa_corrected_mm2",
        "CSA corr.",
        "cm²",
        2,
        0.01,
        meaning="Area across the femur: the area in the slice times the cosine of the angle between them.",
    ),
    Column(
        "csa_max_corrected_mm2",
        "CSA max corr.",
        "cm²",
        2,
        0.01,
        meaning="The largest area across the femur: the area times the cosine of its angle to the slices.",
    ),
    Column(
        "hu_mean", "HU mean", "HU", 1, meaning="Mean of the Hounsfield units of its voxels; sd and median likewise."
    ),
    Column("hu_sd", "HU sd", "HU", 1),
    Column("hu_median", "HU median", "HU", 1),
    Column("hu_fat_fraction", "HU fat", "%", 1, 100, meaning="Share of voxels in the class of fat, −190 to −30 HU."),
    Column("hu_low_fraction", "HU low", "%", 1, 100, meaning="Share of voxels of low attenuation, −29 to 29 HU."),
    Column("hu_normal_fraction", "HU normal", "%", 1, 100, meaning="Share of voxels of normal muscle, 30 to 150 HU."),
    Column(
        "fat_fraction_voxel_mean",
        "FF voxel mean",
        "%",
        1,
        100,
        meaning="Fat fraction: mean of F / (F + W) over the voxels, F and W the Dixon fat and water signals.",
    ),
    Column(
        "fat_fraction_of_sums",
        "FF of sums",
        "%",
        1,
        100,
        meaning="Fat fraction: sum of F over sum of F + W. In uneven muscle it differs from the voxel mean, by up to "
        "five points: state which of the two is used.",
    ),
    Column(
        "fat_fraction_of_mask",
        "FF of mask",
        "%",
        1,
        100,
        meaning="Fat fraction: intermuscular fat over the compartment inside the fascia, both from the label map.",
    ),
    Column(
        "index_percent",
        "Asymmetry",
        "%",
        1,
        meaning="100 (R − L) / ((R + L) / 2), of each quantity: positive where the right side has more.",
    ),
)


def known_columns(frame: pd.DataFrame, *, others: bool = False) -> list[Column]:
    """Return the columns of a table that can be shown, in the order of `COLUMNS`.

    Parameters
    ----------
    frame : DataFrame
        Any table.
    others : bool
        Whether columns without an entry follow under their own names.

    Returns
    -------
    list of Column
    """
    known = [column for column in COLUMNS if column.name in frame.columns]
    if not others:
        return known
    names = {column.name for column in known}
    rest = [str(name) for name in frame.columns if name not in names]
    return known + [_guessed(frame[name], name) for name in rest]


def _guessed(values: pd.Series[Any], name: str) -> Column:
    heading = name.replace("_", " ")
    if values.dtype.kind not in "iuf":
        return Column(name, heading, kind="text")
    if name in ("p", "p_corrected"):
        return Column(name, heading, digits=3, least=0.001)
    finite = values.dropna()
    return Column(name, heading, digits=0 if (finite == finite.round()).all() else 3)
