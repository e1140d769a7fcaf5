"""Scores of methods on cases."""

from __future__ import annotations

from musclekit.evaluation.harness import evaluate, image_for
from musclekit.evaluation.scores import (
    COLUMNS,
    DEFAULT_METRICS,
    METRICS,
    ReferenceScorer,
    Score,
    common_label_set,
    failed,
    known_metrics,
    params_id,
    params_table,
    read_scores,
    score,
    score_table,
    write_scores,
)

__all__ = [
    "COLUMNS",
    "DEFAULT_METRICS",
    "METRICS",
    "ReferenceScorer",
    "Score",
    "common_label_set",
    "evaluate",
    "failed",
    "image_for",
    "known_metrics",
    "params_id",
    "params_table",
    "read_scores",
    "score",
    "score_table",
    "write_scores",
]
