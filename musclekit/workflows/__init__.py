"""One plain function per command, for a notebook as well as for the shell."""

from musclekit.workflows.adapt import AdaptOutcome, adapt_segmenter
from musclekit.workflows.agree import AgreementResult, agree_on_volumes
from musclekit.workflows.cases import ManifestCases, open_cases
from musclekit.workflows.compare import ComparisonResult, compare_scores
from musclekit.workflows.demo import DemoResult, run_demo
from musclekit.workflows.evaluate import EvaluationResult, evaluate_methods, evaluate_predictions, methods_of
from musclekit.workflows.info import collect_info
from musclekit.workflows.measure import label_set_of, measure_scan
from musclekit.workflows.outcome import BatchOutcome, OnProgress, ScanOutcome
from musclekit.workflows.phantoms import write_phantoms
from musclekit.workflows.search import SearchOutcome, search_parameters
from musclekit.workflows.segment import compose_method, segment_scans
from musclekit.workflows.summarise import SummaryResult, summarise_scores
from musclekit.workflows.train import TrainOutcome, train_on_manifest
from musclekit.workflows.train_segmenter import SegmenterOutcome, train_segmenter_on_manifest
from musclekit.workflows.translate import compose_translator, translate_scans
from musclekit.workflows.validate import validate_file

__all__ = [
    "AdaptOutcome",
    "AgreementResult",
    "BatchOutcome",
    "ComparisonResult",
    "DemoResult",
    "EvaluationResult",
    "ManifestCases",
    "OnProgress",
    "ScanOutcome",
    "SearchOutcome",
    "SegmenterOutcome",
    "SummaryResult",
    "TrainOutcome",
    "adapt_segmenter",
    "agree_on_volumes",
    "collect_info",
    "compare_scores",
    "compose_method",
    "compose_translator",
    "evaluate_methods",
    "evaluate_predictions",
    "label_set_of",
    "measure_scan",
    "methods_of",
    "open_cases",
    "run_demo",
    "search_parameters",
    "segment_scans",
    "summarise_scores",
    "train_on_manifest",
    "train_segmenter_on_manifest",
    "translate_scans",
    "validate_file",
    "write_phantoms",
]
