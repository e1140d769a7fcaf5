"""Scores of methods on cases."""

from __future__ import annotations

from musclekit.evaluation.harness import evaluate, image_for
from musclekit.evaluation.scores import (
    COLUMNS,
    METRICS,
    common_label_set,
    failed,
    params_id,
    params_table,
    read_scores,
    score,
    write_scores,
)

__all__ = [
    "COLUMNS",
    "METRICS",
    "common_label_set",
    "evaluate",
    "failed",
    "image_for",
    "params_id",
    "params_table",
    "read_scores",
    "score",
    "write_scores",
]
