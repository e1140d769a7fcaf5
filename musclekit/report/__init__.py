"""Pictures, figures and the HTML report."""

from __future__ import annotations

from musclekit.report.figures import Figure, csa_profile, fat_fraction_bars, hu_histogram, scan_figures, score_strips
from musclekit.report.html import Failure, Report, ScanSection, Table, render_report, write_report
from musclekit.report.montage import Panel, choose_slices, draw_slices, grey_window, montage

__all__ = [
    "Failure",
    "Figure",
    "Panel",
    "Report",
    "ScanSection",
    "Table",
    "choose_slices",
    "csa_profile",
    "draw_slices",
    "fat_fraction_bars",
    "grey_window",
    "hu_histogram",
    "montage",
    "render_report",
    "scan_figures",
    "score_strips",
    "write_report",
]
