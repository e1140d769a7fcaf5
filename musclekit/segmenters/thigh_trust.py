"""How far a segmentation of a thigh is to be trusted: which slices show a thigh, and how well each muscle was found.

Both are told from the network's probabilities by tables that were learnt on slices that nobody scanned
(`benchmarks.thigh`): there truth is known, whatever the contrast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import CheckpointError
from musclekit.labels import label_set
from musclekit.segmenters.thigh_decision import stepwise_scores

__all__ = [
    "CONTEXT", "FEATURES", "MUSCLE_IDS", "ThighTrust", "certainty", "longest_gain", "slice_features", "soft_dice",
]  # fmt: skip

Floats = NDArray[np.float64]

#: The set that probabilities are in: channel and id are the same.
CONTEXT = label_set("thigh-context")
MUSCLE_IDS = tuple(label.id for label in label_set("thigh-11"))
_FEMUR, _OTHER_MUSCLE, _OTHER_BONE = (CONTEXT.ids_of(name)[0] for name in ("femur", "other muscle", "other bone"))

#: What is told of a slice, in this order.
FEATURES = ("share of the eleven in all muscle", "share of other bone in all bone", "muscle", "other bone", "certainty",
            "muscles")  # fmt: skip
#: Area below which a muscle does not count as there.
LEAST_MM2 = 100.0
#: No slice weighs more than this, in odds, when it is asked where the thigh begins and ends.
MOST_ODDS = 4.0


@dataclass(frozen=True, eq=False)
class ThighTrust:
    """What was learnt of the network's answers.

    Parameters
    ----------
    weights : ndarray of float64, shape (6,)
        Of `FEATURES`, in a logistic model of whether a slice shows a thigh.
    offset : float
        Of the same.
    soft, dice : ndarray of float64, shape (n,)
        A soft Dice (`soft_dice`), ascending, and the Dice that muscles of it had.
    """

    weights: Floats
    offset: float
    soft: Floats
    dice: Floats

    def odds(self, features: Floats) -> Floats:
        """Log odds that slices show a thigh; features of shape (n, 6)."""
        found: Floats = np.clip(features @ self.weights + self.offset, -MOST_ODDS, MOST_ODDS)
        return found

    def expected_dice(self, soft: Floats) -> Floats:
        """Dice to be expected of muscles, NaN where there is none."""
        found: Floats = np.where(np.isfinite(soft), np.interp(soft, self.soft, self.dice), np.nan)
        return found

    @classmethod
    def load(cls, path: Path, weights_sha256: str) -> ThighTrust:
        """Read what `save` wrote of the network with these weights.

        Raises
        ------
        CheckpointError
            If the file is damaged, or was learnt of the answers of another network.
        """
        try:
            data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            learnt_of, features = data["weights_sha256"], data["features"]
            weights, soft, dice = (np.array(data[name], dtype=np.float64) for name in ("weights", "soft", "dice"))
            found = cls(weights, float(data["offset"]), soft, dice)
        except (KeyError, TypeError, ValueError) as problem:
            raise CheckpointError(f"{path}: it does not say which of the network's answers can be trusted") from problem
        if learnt_of != weights_sha256 or features != list(FEATURES) or weights.shape != (len(FEATURES),):
            raise CheckpointError(f"{path}: it was learnt of the answers of another network than the one beside it")
        return found

    def save(self, path: Path, weights_sha256: str) -> None:
        """Write it as JSON, with the hash of the network's weights."""
        data = {
            "weights_sha256": weights_sha256,
            "features": list(FEATURES),
            "weights": [round(float(value), 6) for value in self.weights],
            "offset": round(self.offset, 6),
            "soft": [round(float(value), 4) for value in self.soft],
            "dice": [round(float(value), 4) for value in self.dice],
        }
        path.write_text(f"{json.dumps(data, indent=2)}\n", encoding="utf-8")


def slice_features(probabilities: NDArray[np.floating[Any]], pixel_mm2: float) -> Floats:
    """Describe slices by what the network sees in them.

    Parameters
    ----------
    probabilities : ndarray, shape (17, n, rows, columns)
        Of background and the labels of ``thigh-context``.
    pixel_mm2 : float
        Area of a pixel.

    Returns
    -------
    ndarray of float64, shape (n, 6)
        `FEATURES`; of muscle and other bone the logarithm of 1 and their area in cm2.
    """
    area = probabilities.sum(axis=(2, 3), dtype=np.float64) * pixel_mm2
    eleven = area[list(MUSCLE_IDS)]
    muscle, other, bone = eleven.sum(axis=0), area[_OTHER_MUSCLE], area[_OTHER_BONE]
    return np.stack(
        [
            muscle / (muscle + other + LEAST_MM2),
            bone / (bone + area[_FEMUR] + LEAST_MM2),
            np.log1p(muscle / 100),
            np.log1p(bone / 100),
            certainty(probabilities),
            (eleven > LEAST_MM2).mean(axis=0),
        ],
        axis=1,
    )


def certainty(probabilities: NDArray[np.floating[Any]]) -> Floats:
    """Mean probability of the most probable label over what is not background; of each slice, 0 where nothing is."""
    seen = probabilities[0] < 0.5
    highest = np.where(seen, probabilities.max(axis=0), 0).sum(axis=(1, 2), dtype=np.float64)
    found: Floats = highest / np.maximum(np.count_nonzero(seen, axis=(1, 2)), 1)
    return found


def soft_dice(probabilities: NDArray[np.floating[Any]], planes: NDArray[np.bool_] | None = None) -> Floats:
    """Dice of each muscle, as labelled, with its own probabilities: what the network itself expects of it.

    Parameters
    ----------
    probabilities : ndarray, shape (17, n, rows, columns)
        Of background and the labels of ``thigh-context``.
    planes : ndarray of bool, shape (n,), optional
        Those that count; all if left out.

    Returns
    -------
    ndarray of float64, shape (11,)
        NaN of a muscle that is not labelled.
    """
    given = probabilities if planes is None else probabilities[:, planes]
    labelled = stepwise_scores(given).argmax(axis=0)
    found = np.full(len(MUSCLE_IDS), np.nan)
    for n, muscle in enumerate(MUSCLE_IDS):
        mask = labelled == muscle
        size = np.count_nonzero(mask)
        if size:
            found[n] = 2 * given[muscle][mask].sum(dtype=np.float64) / (size + given[muscle].sum(dtype=np.float64))
    return found


def longest_gain(odds: Floats) -> NDArray[np.bool_]:
    """Return the stretch of slices whose log odds sum to most: a thigh has one beginning and one end.

    Parameters
    ----------
    odds : ndarray of float64, shape (n,)
        Log odds that each slice shows a thigh.

    Returns
    -------
    ndarray of bool, shape (n,)
        Nothing where no slice is more likely to than not.
    """
    sums = np.concatenate([[0.0], np.cumsum(odds)])
    lowest = np.minimum.accumulate(sums)
    last = int(np.argmax(sums - lowest))
    found = np.zeros(len(odds), dtype=bool)
    if sums[last] > lowest[last]:
        found[int(np.argmin(sums[: last + 1])) : last] = True
    return found
