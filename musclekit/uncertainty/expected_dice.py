"""The Dice that is to be expected of a structure, from its variance."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from musclekit.checks import check_number
from musclekit.errors import CheckpointError, FormatError, InputError, MissingFileError, ParameterError, unknown_name
from musclekit.io import replacing
from musclekit.schemas import check_schema
from musclekit.uncertainty.values import ClassReduction, Floats, check_level, check_reduction

__all__ = ["FORMAT", "DiceCalibration", "DiceLine", "PredictedDice", "fit_dice_calibration"]

#: Of the file of a calibration.
FORMAT = 1
#: Pairs that a line needs: two make it, the third says how far off it is.
FEWEST_PAIRS = 3


@dataclass(frozen=True)
class DiceLine:
    """The line that leads from the PSV of one structure to its Dice.

    Parameters
    ----------
    alpha, beta : float
        Dice = alpha PSV + beta.
    r : float
        Pearson's correlation of both; nan where every Dice is the same. Near 0, the line is the mean Dice and no more:
        PSV says nothing of this structure.
    n : int
        Pairs it was fitted to.
    resid_sd : float
        Standard deviation about the line, of n - 2 degrees of freedom.
    mean_psv, sxx : float
        Mean of the PSV, and the sum of their squared differences from it: what the interval needs.
    """

    alpha: float
    beta: float
    r: float
    n: int
    resid_sd: float
    mean_psv: float
    sxx: float

    @property
    def rmse(self) -> float:
        """Root of the mean squared difference between Dice and line, over the pairs it was fitted to."""
        return self.resid_sd * math.sqrt((self.n - 2) / self.n)


@dataclass(frozen=True)
class PredictedDice:
    """The Dice that is to be expected of a structure (PDC); all nan where it cannot be told.

    Parameters
    ----------
    value : float
        0 to 1.
    raw : float
        As the line gives it, which may lie beyond.
    low, high : float
        Interval, 0 to 1, that the Dice of one more scan falls into.
    level : float
        How often it does, if the scan is like those of the calibration.
    """

    value: float
    raw: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class DiceCalibration:
    """What the uncertainty of one network says about its Dice; `fit_dice_calibration` makes it.

    Parameters
    ----------
    model : str
        Which network it belongs to: a hash of its weights, or the name of the family that a cross-validation trained.
    class_reduction : {"sum", "mean"}
        How U was reduced over classes.
    n_samples : int
        Samples that U was found from.
    subjects : tuple of str
        The people of the cross-validation.
    structures : mapping of str to DiceLine
        By the name of the structure, both sides together.
    not_fitted : mapping of str to str
        Structures that have no line, and why.
    left_out : mapping of str to int
        Pairs that took no part, by reason: ``"nan"`` (an empty structure has neither PSV nor Dice), ``"infinite"``.
    """

    model: str
    class_reduction: ClassReduction
    n_samples: int
    subjects: tuple[str, ...]
    structures: Mapping[str, DiceLine]
    not_fitted: Mapping[str, str]
    left_out: Mapping[str, int]

    @property
    def unrelated(self) -> tuple[str, ...]:
        """Structures with a line whose Dice does not fall as their PSV grows: it foretells nothing of them."""
        return tuple(name for name, line in self.structures.items() if not line.r < 0)

    def check(
        self, *, model: str, class_reduction: ClassReduction, n_samples: int, subjects: Collection[str] = ()
    ) -> None:
        """Refuse a use that the calibration was not made for. Call it before `predict`.

        Parameters
        ----------
        model, class_reduction, n_samples
            Of the network that is to be used; see `DiceCalibration`.
        subjects : collection of str
            The people it learnt from.

        Raises
        ------
        CheckpointError
            If one of them differs, or the network learnt from people who had no part in the cross-validation; the
            message says which.
        """
        pairs = {
            "model": (self.model, model),
            "class reduction": (self.class_reduction, class_reduction),
            "number of samples": (self.n_samples, n_samples),
        }
        differ = [f"{what} {here!r}, not {there!r}" for what, (here, there) in pairs.items() if here != there]
        if differ:
            raise CheckpointError(f"the calibration of the Dice was made for {'; '.join(differ)}")
        others = sorted(set(subjects) - set(self.subjects))
        if others:
            raise CheckpointError(
                f"the calibration of the Dice was made on other people: the network learnt from '{others[0]}', who had "
                "no part in it"
            )

    def predict(self, name: str, psv: float, *, level: float = 0.95) -> PredictedDice:
        """Predict the Dice of a structure from its PSV.

        Parameters
        ----------
        name : str
            Of the structure, without its side.
        psv : float
            Of it; see `structure_variance`.
        level : float
            Of the interval.

        Returns
        -------
        PredictedDice
            nan where the PSV is nan (the structure is empty) or the structure has no line (see ``not_fitted``).

        Raises
        ------
        UnknownNameError
            If no pair of this structure was ever seen.
        ParameterError
            If the PSV is below 0 or infinite, or the level is not between 0 and 1.

        Notes
        -----
        Hiasa et al., equation (6). Beyond the paper, the value is kept within 0 to 1, and has the prediction interval
        of simple regression: t of n - 2 degrees of freedom times
        resid_sd sqrt(1 + 1 / n + (PSV - mean PSV)^2 / sxx). It takes pairs as independent: too narrow where a person
        gave two.
        """
        check_level(level)
        if not math.isnan(psv):
            check_number("psv", psv, least=0)
        if name not in self.structures:
            if name not in self.not_fitted:
                raise unknown_name("structure", name, [*self.structures, *self.not_fitted])
            return PredictedDice(math.nan, math.nan, math.nan, math.nan, level)
        line = self.structures[name]
        raw = float(line.alpha * psv + line.beta)
        spread = math.sqrt(1 + 1 / line.n + (psv - line.mean_psv) ** 2 / line.sxx)
        half = float(stats.t.ppf((1 + level) / 2, line.n - 2)) * line.resid_sd * spread
        value, low, high = (float(np.clip(dice, 0, 1)) for dice in (raw, raw - half, raw + half))
        return PredictedDice(value, raw, low, high, level)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data that follows ``data_schemas/calibration.schema.json``."""
        lines = {name: asdict(line) for name, line in self.structures.items()}
        for line in lines.values():
            line["r"] = None if math.isnan(line["r"]) else line["r"]
        return {
            "format": FORMAT,
            "model": self.model,
            "class_reduction": self.class_reduction,
            "n_samples": self.n_samples,
            "subjects": list(self.subjects),
            "structures": lines,
            "not_fitted": dict(self.not_fitted),
            "left_out": dict(self.left_out),
        }

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises
        ------
        SchemaError
            If it does not follow ``data_schemas/calibration.schema.json``.
        OutputError
            If the file cannot be written.
        """
        data = self.as_data()
        check_schema(data, "calibration", f"calibration {path.name}")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> DiceCalibration:
        """Read what `save` wrote.

        Raises
        ------
        MissingFileError
            If there is no such file.
        FormatError
            If it is not JSON.
        CheckpointError
            If it is of another format.
        SchemaError
            If it does not follow ``data_schemas/calibration.schema.json``.
        """
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise FormatError(f"{path}: not JSON: {problem}") from None
        if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
            raise CheckpointError(
                f"{path}: a calibration of format {data['format']}, and this musclekit reads format {FORMAT}"
            )
        check_schema(data, "calibration", f"calibration {path.name}")
        lines = {
            name: DiceLine(**line | {"r": math.nan if line["r"] is None else line["r"]})
            for name, line in data["structures"].items()
        }
        kept = {name: data[name] for name in data if name not in ("format", "structures", "subjects")}
        return cls(**kept, structures=lines, subjects=tuple(data["subjects"]))


def fit_dice_calibration(
    pairs: pd.DataFrame, *, model: str, n_samples: int, class_reduction: ClassReduction = "sum"
) -> DiceCalibration:
    """Fit, for each structure, the line that leads from its PSV to its Dice.

    Parameters
    ----------
    pairs : DataFrame
        One row a scan (or leg) and structure, gathered over a cross-validation so that each scan was segmented by a
        network that never saw its subject: ``subject``, ``label`` (name of the structure, without its side), ``psv``
        and ``dice``. Other columns are not looked at.
    model : str
        Which network the calibration belongs to; see `DiceCalibration`.
    n_samples : int
        Samples that U was found from, 2 or more.
    class_reduction : {"sum", "mean"}
        How U was reduced over classes.

    Returns
    -------
    DiceCalibration
        A structure with fewer than three pairs or with one PSV only has no line; ``not_fitted`` says so.

    Raises
    ------
    InputError
        If a column is missing, a pair has no subject or no label, a PSV is below 0 or a Dice outside 0 to 1, or no
        structure can be fitted.
    ParameterError
        If the class reduction does not exist, the number of samples is below 2, or the model has no name.

    Notes
    -----
    Hiasa et al., section II-C and equation (6): least squares over all pairs of a K-fold cross-validation (theirs: 4
    folds, 20 CTs, 20 points a structure). The network that is used afterwards may be one trained on all of them; the
    calibration then holds for the family, not for that very network.
    """
    check_reduction(class_reduction)
    check_number("n_samples", n_samples, least=2, whole=True)
    if not model:
        raise ParameterError("a calibration names the model that it belongs to")
    missing = [name for name in ("subject", "label", "psv", "dice") if name not in pairs.columns]
    if missing:
        raise InputError(f"a calibration of the Dice needs the columns subject, label, psv, dice: no {missing[0]}")
    for name in ("subject", "label"):
        if pairs[name].isna().any():
            raise InputError(f"a calibration of the Dice: row {int(pairs[name].isna().argmax()) + 1} has no {name}")
    psv, dice = (pairs[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("psv", "dice"))
    for what, values, most in (("psv", psv, math.inf), ("dice", dice, 1.0)):
        wrong = values[np.isfinite(values) & ((values < 0) | (values > most))]
        if wrong.size:
            raise InputError(f"a calibration of the Dice: {what} {wrong[0]:g} lies outside 0 to {most:g}")
    undefined = np.isnan(psv) | np.isnan(dice)
    kept = np.isfinite(psv) & np.isfinite(dice)
    reasons = {"nan": undefined, "infinite": ~kept & ~undefined}
    labels = pairs["label"].astype(str).to_numpy()
    lines: dict[str, DiceLine] = {}
    not_fitted: dict[str, str] = {}
    for name in dict.fromkeys(labels):
        of_it = kept & (labels == name)
        found = _line(psv[of_it], dice[of_it])
        if isinstance(found, str):
            not_fitted[name] = found
        else:
            lines[name] = found
    if not lines:
        why = "; ".join(f"{name}: {reason}" for name, reason in not_fitted.items()) or "there are no pairs"
        raise InputError(f"no structure can be calibrated ({why})")
    return DiceCalibration(
        model=model,
        class_reduction=class_reduction,
        n_samples=int(n_samples),
        subjects=tuple(sorted(pairs["subject"].astype(str).unique())),
        structures=lines,
        not_fitted=not_fitted,
        left_out={reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()},
    )


def _alike(values: Floats) -> bool:
    """Whether values that are not negative are the same but for rounding."""
    return bool(np.ptp(values) <= 8 * np.finfo(np.float64).eps * values.max())


def _line(psv: Floats, dice: Floats) -> DiceLine | str:
    """Fit a line by least squares, or say why there is none."""
    n = len(psv)
    if n < FEWEST_PAIRS:
        return f"{n} of the {FEWEST_PAIRS} pairs that a line needs"
    if _alike(psv):
        return f"all {n} PSV are {psv[0]:g}"
    mean_psv, mean_dice = float(psv.mean()), float(dice.mean())
    across, along = psv - mean_psv, dice - mean_dice
    sxx, sxy, syy = (float(a @ b) for a, b in ((across, across), (across, along), (along, along)))
    alpha = sxy / sxx
    residual = along - alpha * across
    r = math.nan if _alike(dice) else max(-1.0, min(1.0, sxy / math.sqrt(sxx * syy)))
    resid_sd = math.sqrt(float(residual @ residual) / (n - 2))
    return DiceLine(alpha, mean_dice - alpha * mean_psv, r, n, resid_sd, mean_psv, sxx)
