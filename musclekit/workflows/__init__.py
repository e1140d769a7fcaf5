"""One plain function per command, for a notebook as well as for the shell."""

from musclekit.workflows.demo import DemoResult, run_demo
from musclekit.workflows.info import collect_info
from musclekit.workflows.measure import label_set_of, measure_scan
from musclekit.workflows.outcome import BatchOutcome, OnProgress, ScanOutcome
from musclekit.workflows.phantoms import write_phantoms
from musclekit.workflows.segment import compose_method, segment_scans
from musclekit.workflows.validate import validate_file

__all__ = [
    "BatchOutcome",
    "DemoResult",
    "OnProgress",
    "ScanOutcome",
    "collect_info",
    "compose_method",
    "label_set_of",
    "measure_scan",
    "run_demo",
    "segment_scans",
    "validate_file",
    "write_phantoms",
]
