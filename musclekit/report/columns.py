"""How the columns of the tables of measures and scores are shown to people: heading, unit, digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
    """

    name: str
    heading: str
    unit: str = ""
    digits: int = 1
    factor: float = 1.0
    kind: Literal["key", "number", "status", "text"] = "number"
    meaning: str = ""

    def format(self, value: float) -> str:
        """Return the value as it is shown; thousands apart, a true minus sign."""
        text = f"{value * self.factor:,.{self.digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        return text.replace("-", "\N{MINUS SIGN}")


COLUMNS = (
    Column("case_id", "Case", kind="key"),
    Column("method", "Method", kind="key"),
    Column("label", "Structure", kind="key"),
    Column("structure", "Structure", kind="key"),
    Column("side", "Side", kind="key"),
    Column("slice", "Slice", kind="key"),
    Column("level_mm", "Level", "mm", 0),
    Column("volume_ml", "Volume", "mL"),
    Column("csa_mm2", "CSA", "cm²", 1, 0.01),
    Column("status", "Coverage", kind="status"),
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
    numeric = {name for name in rest if frame[name].dtype.kind in "iuf"}
    return known + [
        Column(name, name.replace("_", " "), digits=0 if frame[name].dtype.kind in "iu" else 3)
        if name in numeric
        else Column(name, name.replace("_", " "), kind="text")
        for name in rest
    ]
