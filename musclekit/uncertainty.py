"""How far a sampling network can be trusted: variance, structure by structure, and the Dice to be expected of it.

A network with dropout left on gives other probabilities each time it is asked (Monte Carlo dropout). U below is the
predictive variance of a voxel: the variance over the samples of the probability of each class, summed over classes.

Hiasa et al., Automated muscle segmentation from clinical CT using Bayesian U-Net for personalized musculoskeletal
modeling, IEEE Trans Med Imaging 39(4):1030-1040, 2020: equations (3) to (6). What is added: entropy, the interval of
the predicted Dice, the calibration of the probabilities, and how well U finds the errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from musclekit.checks import check_number
from musclekit.errors import (
    CheckpointError,
    FormatError,
    GeometryError,
    InputError,
    LabelError,
    MissingFileError,
    ParameterError,
    VoxelError,
    unknown_name,
)
from musclekit.image import LabelMap
from musclekit.io import replacing
from musclekit.schemas import check_schema
from musclekit.statistics import Interval

__all__ = [
    "FORMAT",
    "ClassReduction",
    "DiceCalibration",
    "DiceLine",
    "ErrorAgreement",
    "InsideOutside",
    "PredictedDice",
    "RunningSums",
    "calibration_curve",
    "entropy",
    "error_agreement",
    "expected_calibration_error",
    "fit_dice_calibration",
    "interval_text",
    "sample_interval",
    "structure_variance",
    "structure_variance_by_slice",
    "uncertainty_inside_outside",
]

ClassReduction = Literal["sum", "mean"]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Of the file of a calibration.
FORMAT = 1
#: Pairs that a line needs: two make it, the third says how far off it is.
FEWEST_PAIRS = 3

#: A softmax in float32 may be off by so much; as in `ProbabilityMap`.
_ROUNDING = 1e-5


# What is checked in every function


def _ends(array: NDArray[Any], what: str) -> tuple[float, float]:
    """Least and greatest value; nan where one is nan."""
    if not array.size:
        raise GeometryError(f"{what} of shape {array.shape}: there is nothing in it")
    return float(array.min()), float(array.max())


def _probabilities(values: ArrayLike, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    low, high = _ends(array, what)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise VoxelError(f"{what} lie between 0 and 1, found {low:g} to {high:g}")
    return array


def _with_classes(values: ArrayLike) -> NDArray[Any]:
    array = _probabilities(values, "probabilities")
    if not array.ndim:
        raise GeometryError("probabilities have one axis or more, the first of which counts the classes")
    return array


def _variances(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != shape:
        raise GeometryError(f"the variance has shape {array.shape}, what it is compared with {shape}")
    low, high = _ends(array, "a variance")
    if not (low >= 0 and high < math.inf):
        raise VoxelError(f"a variance is a finite number and not below 0, found {low:g} to {high:g}")
    return array


def _mask(values: ArrayLike, shape: tuple[int, ...], what: str) -> Mask:
    array = np.asarray(values)
    if array.dtype != np.bool_:
        raise ParameterError(f"{what} is boolean, not {array.dtype}")
    if array.shape != shape:
        raise GeometryError(f"{what} has shape {array.shape}, the values {shape}")
    return array


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Part of a whole, element by element; nan where there is nothing to divide by."""
    out = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else math.nan


def _level(level: float) -> None:
    if not 0 < level < 1:
        raise ParameterError(f"the level of an interval lies between 0 and 1, not at {level:g}")


def _class_reduction(name: str) -> None:
    if name not in get_args(ClassReduction):
        raise ParameterError(f"the class reduction is one of {', '.join(get_args(ClassReduction))}, not '{name}'")


# Variance and entropy of a voxel


class RunningSums:
    """Mean and variance of sampled probabilities, found without keeping any sample.

    What is held are two arrays of float64 of the shape of a sample: the sum of the samples and that of their squares.
    For a whole volume of many classes that is still much; a network in two dimensions is sampled slice by slice.

    Notes
    -----
    Hiasa et al., equations (3) and (4); of the matrix (4) the diagonal. The variance is that of the population (divided
    by the number of samples), as printed; their port to PyTorch divides by one less.

    Examples
    --------
    >>> sums = RunningSums()
    >>> for p in (0.9, 0.7, 0.5, 0.9):
    ...     sums.add([p, 1 - p])
    >>> sums.mean().round(4).tolist(), round(float(sums.variance()), 4)
    ([0.75, 0.25], 0.055)
    """

    def __init__(self) -> None:
        self._n = 0
        self._sum: Floats = np.zeros(0)
        self._squares: Floats = np.zeros(0)

    @property
    def n(self) -> int:
        """Samples so far."""
        return self._n

    def add(self, probabilities: ArrayLike) -> None:
        """Take in one sample.

        Parameters
        ----------
        probabilities : array_like of shape (C, ...)
            Of each class at each voxel.

        Raises
        ------
        GeometryError
            If the sample has no axis, no element, or another shape than those before it.
        VoxelError
            If a value is not a probability.
        """
        sample = _with_classes(probabilities)
        if not self._n:
            self._sum, self._squares = np.zeros(sample.shape), np.zeros(sample.shape)
        elif sample.shape != self._sum.shape:
            raise GeometryError(f"a sample has shape {sample.shape}, those before it {self._sum.shape}")
        self._n += 1
        # Class by class: the squares of all of them would be new memory at every call, and take as long as the rest.
        for n, values in enumerate(sample):
            self._sum[n] += values
            self._squares[n] += np.square(values, dtype=np.float64)

    def mean(self) -> Floats:
        """Return the mean of the samples, shape (C, ...): the probabilities that labels are taken from (equation 3).

        Raises
        ------
        InputError
            If there is no sample yet.
        """
        self._need_samples()
        return self._sum / self._n

    def class_variance(self) -> Floats:
        """Return the population variance of each class, shape (C, ...): the diagonal of equation (4).

        Raises
        ------
        InputError
            If there is no sample yet.
        """
        self._need_samples()
        variance = self._squares / self._n
        variance -= np.square(self._sum / self._n)
        # What does not vary comes out some 1e-17 above or below 0.
        return np.maximum(variance, 0, out=variance)

    def variance(self, reduction: ClassReduction = "sum") -> Floats:
        """Return the predictive variance of each voxel, U, shape (...).

        Parameters
        ----------
        reduction : {"sum", "mean"}
            Over classes, background included. ``"sum"`` is that of equations (5) and (7); ``"mean"``, smaller by the
            number of classes, that of the authors' program. Thresholds and calibrations hold for one of them only.

        Raises
        ------
        InputError
            If there is no sample yet.
        ParameterError
            If there is no such reduction.
        """
        _class_reduction(reduction)
        variance = self.class_variance()
        return np.asarray(variance.sum(axis=0) if reduction == "sum" else variance.mean(axis=0))

    def _need_samples(self) -> None:
        if not self._n:
            raise InputError("there is no mean and no variance of no sample; add one first")


def entropy(probabilities: ArrayLike, *, normalised: bool = False) -> Floats:
    """Entropy of the probabilities of each voxel, in bits.

    Of the mean of samples it is the whole doubt, that of single samples included; U is only how far samples disagree.

    Parameters
    ----------
    probabilities : array_like of shape (C, ...)
        Of each class; those of a voxel add up to 1.
    normalised : bool
        Whether to divide by log2 C, which makes it 0 to 1.

    Returns
    -------
    ndarray of float64, shape (...)
        0 where one class is certain, log2 C where all are alike.

    Raises
    ------
    GeometryError
        If there is no axis or no element.
    VoxelError
        If a value is not a probability.
    ParameterError
        If the entropy of a single class is to be normalised.

    Notes
    -----
    - sum p log2 p over classes, p not below 1e-30.
    """
    p = np.clip(_with_classes(probabilities), 1e-30, 1, dtype=np.float64)
    bits = np.asarray(-(p * np.log2(p)).sum(axis=0))
    if not normalised:
        return bits
    if len(p) < 2:
        raise ParameterError("the entropy of a single class cannot be normalised: it is always 0")
    return np.asarray(bits / math.log2(len(p)))


# Variance of a structure


def _sums_of_labels(labels: LabelMap, variance: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Voxels of each label in each slice and the sum of their variance, both of shape (labels, Z)."""
    values = _variances(variance, labels.grid.shape).reshape(-1)
    planes, rows, columns = labels.grid.shape
    flat = labels.voxels.reshape(-1)
    index = np.flatnonzero(flat != 0)
    length = max(labels.label_set.ids) + 1
    cell = index // (rows * columns) * length + flat[index]
    counts = np.bincount(cell, minlength=planes * length).reshape(planes, length)
    sums = np.bincount(cell, values[index], minlength=planes * length).reshape(planes, length)
    ids = [label.id for label in labels.label_set]
    return counts[:, ids].T, sums[:, ids].T


def _keys(labels: LabelMap) -> dict[str, list[Any]]:
    return {
        "id": [label.id for label in labels.label_set],
        "structure": [label.name for label in labels.label_set],
        "abbreviation": [label.abbreviation for label in labels.label_set],
        "side": [label.side or "" for label in labels.label_set],
    }


def structure_variance(labels: LabelMap, variance: ArrayLike) -> pd.DataFrame:
    """Predictive structure-wise variance (PSV): the mean of U over the voxels of each label.

    Parameters
    ----------
    labels : LabelMap
        The most probable label of each voxel: those that the network predicts, not a reference.
    variance : array_like of shape (Z, Y, X)
        U, as `RunningSums.variance` makes it.

    Returns
    -------
    DataFrame
        One row a label of the set, in its order: ``id``, ``structure``, ``abbreviation``, ``side`` (empty where sides
        are not told apart), ``voxels``, ``psv``. A label without a voxel has a row too; its PSV is NaN.

    Raises
    ------
    GeometryError
        If the variance does not have the shape of the labels.
    VoxelError
        If a variance is not finite or is below 0.

    Notes
    -----
    Hiasa et al., equation (5), over all voxels of the structure in the volume.
    """
    counts, sums = (table.sum(axis=1) for table in _sums_of_labels(labels, variance))
    return pd.DataFrame(_keys(labels) | {"voxels": counts, "psv": _ratio(sums, counts)})


def structure_variance_by_slice(labels: LabelMap, variance: ArrayLike) -> pd.DataFrame:
    """Mean of U over the voxels of each label in each slice; which slices to look at first.

    Parameters
    ----------
    labels, variance
        As in `structure_variance`, whose errors it shares.

    Returns
    -------
    DataFrame
        One row a label and slice: the columns of `structure_variance`, with ``slice`` (index along axis 0) after
        ``side``. A slice without the label has a row too; its PSV is NaN.
    """
    counts, sums = _sums_of_labels(labels, variance)
    n_labels, planes = counts.shape
    table = {name: np.repeat(np.array(key, dtype=object), planes) for name, key in _keys(labels).items()}
    table["id"] = table["id"].astype(np.int64)
    table["slice"] = np.tile(np.arange(planes), n_labels)
    return pd.DataFrame(table | {"voxels": counts.reshape(-1), "psv": _ratio(sums, counts).reshape(-1)})


# Interval of a volume or an area


def sample_interval(samples: ArrayLike, *, level: float = 0.95) -> Interval:
    """Interval that holds the middle part of what the network says of one volume or area.

    It is the spread of the network's own samples and no confidence interval of the truth: it knows nothing of what the
    network always gets wrong, of an unlike scanner, or of how the structure would be drawn by another hand.

    Parameters
    ----------
    samples : array_like of float, shape (samples,)
        The volume, or the area in one slice, in each sample.
    level : float
        The part that it holds.

    Returns
    -------
    Interval
        Percentiles, by linear interpolation: of fewer than 40 samples, those of 0.95 lie between the outermost two.

    Raises
    ------
    InputError
        If there are fewer than two samples, or one is not a finite number.
    ParameterError
        If the level is not between 0 and 1.
    """
    _level(level)
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"an interval takes a list of two samples or more, not an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum())} of {len(values)} samples are no finite number")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "percentiles of the network's samples")


def interval_text(value: float, interval: Interval, unit: str, *, decimals: int = 0) -> str:
    """Return a value with its interval in words.

    Examples
    --------
    >>> interval_text(812.3, sample_interval([790, 836]), "ml")
    '812 ml, 791 to 835'
    """
    amount = f"{value:.{decimals}f} {unit}".rstrip()
    return f"{amount}, {interval.low:.{decimals}f} to {interval.high:.{decimals}f}"


# Dice that is to be expected


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
    n_subjects : int
        People whose pairs it was fitted to.
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
    n_subjects: int
    structures: Mapping[str, DiceLine]
    not_fitted: Mapping[str, str]
    left_out: Mapping[str, int]

    def check(self, *, model: str, class_reduction: ClassReduction, n_samples: int) -> None:
        """Refuse a use that the calibration was not made for. Call it before `predict`.

        Parameters
        ----------
        model, class_reduction, n_samples
            Of the network that is to be used; see `DiceCalibration`.

        Raises
        ------
        CheckpointError
            If one of them differs; the message says which.
        """
        pairs = {
            "model": (self.model, model),
            "class reduction": (self.class_reduction, class_reduction),
            "number of samples": (self.n_samples, n_samples),
        }
        differ = [f"{what} {here!r}, not {there!r}" for what, (here, there) in pairs.items() if here != there]
        if differ:
            raise CheckpointError(f"the calibration of the Dice was made for {'; '.join(differ)}")

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
        _level(level)
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
            "n_subjects": self.n_subjects,
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
        return cls(**{name: data[name] for name in data if name not in ("format", "structures")}, structures=lines)


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
    _class_reduction(class_reduction)
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
        n_subjects=int(pairs["subject"][kept & np.isin(labels, list(lines))].astype(str).nunique()),
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


# Do the probabilities mean what they say?


def calibration_curve(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10, region: ArrayLike | None = None
) -> pd.DataFrame:
    """How often a network is right that says it is so sure.

    Parameters
    ----------
    confidence : array_like of float
        Probability of the most probable class at each voxel, background included: ``mean.voxels.max(axis=0)`` of a
        `Prediction`.
    correct : array_like of bool, of the same shape
        Whether that class is the right one.
    bins : int
        Bins of equal width over 0 to 1.
    region : array_like of bool, of the same shape, optional
        Voxels that count; all where not given. Give the body: a network is sure and right in air, and enough of it
        makes any network look calibrated.

    Returns
    -------
    DataFrame
        One row a bin: ``low``, ``high`` ([low, high), the last one closed), ``n``, and the means ``confidence`` and
        ``accuracy``, NaN in an empty bin. Accuracy below confidence: the network is too sure of itself.

    Raises
    ------
    GeometryError
        If the shapes differ or there is no voxel at all.
    VoxelError
        If a confidence is not a probability.
    ParameterError
        If ``correct`` or the region is not boolean, or the number of bins is below 1.
    """
    check_number("bins", bins, least=1, whole=True)
    sure = _probabilities(confidence, "confidences")
    right = _mask(correct, sure.shape, "what is correct")
    if region is None:
        sure, right = sure.reshape(-1), right.reshape(-1)
    else:
        inside = _mask(region, sure.shape, "the region")
        sure, right = sure[inside], right[inside]
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n": counts,
            "confidence": _ratio(np.bincount(index, sure, minlength=bins), counts),
            "accuracy": _ratio(np.bincount(index, right, minlength=bins), counts),
        }
    )


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10, region: ArrayLike | None = None
) -> float:
    """Sum up a calibration curve in one number, the expected calibration error (ECE).

    Parameters
    ----------
    confidence, correct, bins, region
        As in `calibration_curve`, whose errors it shares.

    Returns
    -------
    float
        Mean of |accuracy - confidence| over bins, weighted by their voxels; 0 to 1, nan where the region is empty.

    Notes
    -----
    Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017. It depends on the bins, and says nothing of the
    classes that are not the most probable.
    """
    curve = calibration_curve(confidence, correct, bins=bins, region=region)
    filled = curve[curve["n"] > 0]
    if filled.empty:
        return math.nan
    return float(np.average((filled["accuracy"] - filled["confidence"]).abs(), weights=filled["n"]))


# Does the variance lie where the errors are?


@dataclass(frozen=True)
class ErrorAgreement:
    """How well U finds the voxels that are wrong.

    Parameters
    ----------
    auc : float
        Area under the ROC curve: how often a wrong voxel has the larger U of a wrong and a right one drawn at random,
        a tie counting half. 0.5 is chance; nan where no voxel is wrong, or none is right.
    mean_wrong, mean_right : float
        Mean of U over either; nan where there is none.
    n_wrong, n_right : int
        Voxels.
    """

    auc: float
    mean_wrong: float
    mean_right: float
    n_wrong: int
    n_right: int


def error_agreement(
    variance: ArrayLike, prediction: LabelMap, reference: LabelMap, region: ArrayLike
) -> ErrorAgreement:
    """Compare U with the errors of a segmentation.

    Parameters
    ----------
    variance : array_like of shape (Z, Y, X)
        U of each voxel; any other measure of doubt that is not negative (as `entropy`) does too.
    prediction, reference : LabelMap
        Of one label set, on one grid. A voxel is wrong where they differ.
    region : array_like of bool, shape (Z, Y, X)
        Voxels that count: the body. The more air there is in it, the better the area under the curve.

    Returns
    -------
    ErrorAgreement
        Ranks are taken over all voxels of the region.

    Raises
    ------
    GeometryError
        If the grids or the shapes differ.
    LabelError
        If the label sets differ.
    VoxelError
        If a variance is not finite or is below 0.
    ParameterError
        If the region is not boolean.
    """
    if not prediction.grid.same_as(reference.grid):
        difference = prediction.grid.difference(reference.grid)
        raise GeometryError(f"prediction and reference lie on two grids: {difference}")
    if prediction.label_set != reference.label_set:
        raise LabelError(f"the prediction is '{prediction.label_set.name}', the reference '{reference.label_set.name}'")
    inside = _mask(region, prediction.grid.shape, "the region")
    values = _variances(variance, prediction.grid.shape)[inside]
    wrong = (prediction.voxels != reference.voxels)[inside]
    n_wrong = int(np.count_nonzero(wrong))
    n_right = wrong.size - n_wrong
    auc = math.nan
    if n_wrong and n_right:
        # Mann and Whitney's U of the wrong ones, of all pairs.
        above = float(stats.rankdata(values)[wrong].sum()) - n_wrong * (n_wrong + 1) / 2
        auc = above / (n_wrong * n_right)
    return ErrorAgreement(auc, _mean(values[wrong]), _mean(values[~wrong]), n_wrong, n_right)


@dataclass(frozen=True)
class InsideOutside:
    """Mean of U inside and outside a mask, within a region.

    Parameters
    ----------
    inside, outside : float
        Mean of U; nan where there is no voxel.
    n_inside, n_outside : int
        Voxels.
    """

    inside: float
    outside: float
    n_inside: int
    n_outside: int


def uncertainty_inside_outside(variance: ArrayLike, inside: ArrayLike, region: ArrayLike) -> InsideOutside:
    """Compare U inside a mask, as a tumour, with U outside it.

    Parameters
    ----------
    variance : array_like of float
        U of each voxel.
    inside : array_like of bool, of the same shape
        The mask.
    region : array_like of bool, of the same shape
        Voxels that count: the body, or what is predicted to be muscle. Voxels of the mask outside it do not.

    Returns
    -------
    InsideOutside
        Means and voxels of either part.

    Raises
    ------
    GeometryError
        If the shapes differ.
    VoxelError
        If a variance is not finite or is below 0.
    ParameterError
        If a mask is not boolean.
    """
    values = _variances(variance, np.shape(variance))
    considered, within = _mask(region, values.shape, "the region"), _mask(inside, values.shape, "the mask")
    first, second = values[considered & within], values[considered & ~within]
    return InsideOutside(_mean(first), _mean(second), first.size, second.size)
