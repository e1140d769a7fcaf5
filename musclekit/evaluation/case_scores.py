"""Scores of one case: its sides told apart, and rows that say why wherever there is no score."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from musclekit.anatomy import Leg, body_mask, split_legs
from musclekit.errors import InputError, MusclekitError
from musclekit.evaluation.scores import (
    WITHIN_BODY,
    ReferenceScorer,
    Score,
    common_label_set,
    failed,
    known_metrics,
    score_table,
)
from musclekit.image import Case, LabelMap
from musclekit.labels import LabelSet

__all__ = ["CaseScorer", "reason", "score_case"]


class CaseScorer:
    """Scores label maps of one case; what they share is worked out once.

    Where the label set does not tell the sides apart, the case names no side and its scan shows two legs
    (`musclekit.anatomy.split_legs`), labels and reference are parted by leg and each side is scored by itself; left and
    right come from the affine. The side of a single leg is that of the case, else what the scan tells.

    Specificity and accuracy are those of the body (`musclekit.anatomy.body_mask`), both legs of it where the scan shows
    two, never of the whole field of view; they are undefined where no body is found.

    Parameters
    ----------
    case : Case
        With its reference; without one, there are only failures.
    metrics : sequence of str, optional
        Names among `musclekit.evaluation.METRICS`; `musclekit.evaluation.DEFAULT_METRICS` if left out.
    label_set : LabelSet, optional
        Set to compare in; that of `musclekit.evaluation.common_label_set` if left out.
    slices : bool
        Whether the measures of overlap are taken of each slice too.

    Raises
    ------
    UnknownNameError
        If there is no such metric.
    """

    def __init__(
        self,
        case: Case,
        metrics: Sequence[str] | None = None,
        label_set: LabelSet | None = None,
        *,
        slices: bool = True,
    ) -> None:
        self.case = case
        self.metrics = known_metrics(metrics)
        self.label_set = label_set
        self.slices = slices
        self._scorers: dict[LabelSet, ReferenceScorer] = {}

    def table(self, labels: LabelMap, *, method: str, params_id: str = "", fold: str = "") -> pd.DataFrame:
        """Score a label map.

        Parameters
        ----------
        labels : LabelMap
            On the grid of the case.
        method, params_id, fold : str
            Key of the rows.

        Returns
        -------
        DataFrame
            Score table.

        Raises
        ------
        InputError
            If the case has no reference, or the label map lies on another grid or in a set that cannot be compared.
        """
        _, target = self._target(labels.label_set)
        return score_table(
            self.scores(labels),
            case_id=self.case.id,
            subject=self.case.subject,
            method=method,
            params_id=params_id,
            side=self._side(target),
            fold=fold,
        )

    def scores(self, labels: LabelMap) -> list[Score]:
        """Score a label map, as `table` does, without making a table: see `ReferenceScorer.scores`."""
        reference, target = self._target(labels.label_set)
        if target not in self._scorers:
            self._scorers[target] = ReferenceScorer(
                reference,
                label_set=target,
                metrics=self.metrics,
                slices=self.slices,
                legs=self._legs(target),
                body=self._body if WITHIN_BODY & set(self.metrics) else None,
            )
        return self._scorers[target].scores(labels)

    def failed(
        self, message: str, label_set: LabelSet, *, method: str, params_id: str = "", fold: str = ""
    ) -> pd.DataFrame:
        """Return rows that say why there is no score, for each label and side that would have been scored.

        Parameters
        ----------
        message : str
            Why (`reason`).
        label_set : LabelSet
            That of the method.
        method, params_id, fold : str
            Key of the rows.
        """
        target: LabelSet | None = self.label_set
        side: str | None = self.case.side
        with suppress(MusclekitError):  # without a set to compare in there is one row
            _, target = self._target(label_set)
            side = self._side(target)
            target = target.sided() if self._legs(target) else target
        return failed(
            message,
            case_id=self.case.id,
            subject=self.case.subject,
            method=method,
            params_id=params_id,
            side=side,
            fold=fold,
            label_set=target,
            metrics=self.metrics,
        )

    def _target(self, label_set: LabelSet) -> tuple[LabelMap, LabelSet]:
        """Return the reference, and the set to compare in."""
        if self.case.reference is None:
            raise InputError(f"case '{self.case.id}' has no reference labels")
        return self.case.reference, self.label_set or common_label_set(label_set, self.case.reference.label_set)

    @cached_property
    def _body(self) -> NDArray[np.bool_]:
        """The body in the scan; empty where none is found, so that what needs it is undefined."""
        image = next(iter(self.case.images.values()))
        try:
            return body_mask(image)
        except MusclekitError:
            return np.zeros(image.grid.shape, dtype=np.bool_)

    @cached_property
    def legs(self) -> tuple[Leg, ...]:
        """The legs that the scan shows; none where they cannot be told: the scores are then those of the whole scan."""
        try:
            return split_legs(next(iter(self.case.images.values())), self._body)
        except MusclekitError:
            return ()

    def _legs(self, target: LabelSet) -> tuple[Leg, ...]:
        """Return the two legs by which a set that does not tell sides apart is scored, if there are two."""
        sideless = self.case.side is None and not target.is_sided and target.ids <= set(target.sided_ids)
        return self.legs if sideless and len(self.legs) == 2 else ()

    def _side(self, target: LabelSet) -> str | None:
        if self.case.side is None and not target.is_sided and len(self.legs) == 1:
            return self.legs[0].side or "unknown"
        return self.case.side


def score_case(
    labels: LabelMap,
    case: Case,
    *,
    method: str,
    params_id: str = "",
    fold: str = "",
    metrics: Sequence[str] | None = None,
    label_set: LabelSet | None = None,
) -> pd.DataFrame:
    """Score one label map of a case, as `musclekit.evaluation.evaluate` does.

    Parameters
    ----------
    labels : LabelMap
        On the grid of the case.
    case : Case
        With its reference.
    method, params_id, fold : str
        Key of the rows.
    metrics, label_set
        As of `CaseScorer`, which scores several label maps of a case faster.

    Returns
    -------
    DataFrame
        Score table.

    Raises
    ------
    InputError
        If the case has no reference, or the label map lies on another grid or in a set that cannot be compared.
    """
    return CaseScorer(case, metrics, label_set).table(labels, method=method, params_id=params_id, fold=fold)


def reason(problem: Exception) -> str:
    """Return in one line why a method failed: what musclekit says, or what was raised unexpectedly and where."""
    if isinstance(problem, MusclekitError):
        return str(problem)
    where = traceback.extract_tb(problem.__traceback__)[-1]
    return f"unexpected {type(problem).__name__} in {Path(where.filename).name}:{where.lineno}: {problem}"
