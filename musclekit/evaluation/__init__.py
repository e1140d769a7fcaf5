"""Scores of methods on cases.

The search is `musclekit.evaluation.search.search`: the package does not hide that module behind its function.
"""

from __future__ import annotations

from musclekit.evaluation.agreement import (
    AGREEMENT_COLUMNS,
    REPEATABILITY_COLUMNS,
    pair_volumes,
    repeatability,
    volume_agreement,
)
from musclekit.evaluation.case_scores import CaseScorer, score_case
from musclekit.evaluation.comparison import COMPARISON_COLUMNS, compare
from musclekit.evaluation.harness import evaluate, image_for, labels_path, training_subjects
from musclekit.evaluation.scores import (
    COLUMNS,
    DEFAULT_METRICS,
    METRICS,
    WITHIN_BODY,
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
from musclekit.evaluation.search import Plan, SearchResult, check_plan, read_plan
from musclekit.evaluation.splits import Fold, by_split, check_folds, k_folds, leave_one_subject_out, subjects_of

__all__ = [
    "AGREEMENT_COLUMNS",
    "COLUMNS",
    "COMPARISON_COLUMNS",
    "DEFAULT_METRICS",
    "METRICS",
    "REPEATABILITY_COLUMNS",
    "WITHIN_BODY",
    "CaseScorer",
    "Fold",
    "Plan",
    "ReferenceScorer",
    "Score",
    "SearchResult",
    "by_split",
    "check_folds",
    "check_plan",
    "common_label_set",
    "compare",
    "evaluate",
    "failed",
    "image_for",
    "k_folds",
    "known_metrics",
    "labels_path",
    "leave_one_subject_out",
    "pair_volumes",
    "params_id",
    "params_table",
    "read_plan",
    "read_scores",
    "repeatability",
    "score",
    "score_case",
    "score_table",
    "subjects_of",
    "training_subjects",
    "volume_agreement",
    "write_scores",
]
