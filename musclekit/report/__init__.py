"""Pictures, figures and the HTML report."""

from __future__ import annotations

from musclekit.report.case_maps import case_map
from musclekit.report.data import plain, report_data
from musclekit.report.drawing import Figure
from musclekit.report.figures import csa_profile, fat_fraction_bars, hu_histogram, scan_figures
from musclekit.report.html import Failure, Picture, Report, ScanSection, Table, render_report, write_report
from musclekit.report.leg_sheet import LegColumn, leg_sheet
from musclekit.report.loss_figures import loss_curves
from musclekit.report.montage import Panel, choose_slices, draw_slices, grey_window, montage
from musclekit.report.score_figures import bland_altman, boxplot, differences, not_drawn, score_strips, sensitivity_map
from musclekit.report.score_tables import paper_table, summary_table, to_latex, to_markdown
from musclekit.report.trust_figures import reliability, variance_against_dice, variance_bars

__all__ = [
    "Failure",
    "Figure",
    "LegColumn",
    "Panel",
    "Picture",
    "Report",
    "ScanSection",
    "Table",
    "bland_altman",
    "boxplot",
    "case_map",
    "choose_slices",
    "csa_profile",
    "differences",
    "draw_slices",
    "fat_fraction_bars",
    "grey_window",
    "hu_histogram",
    "leg_sheet",
    "loss_curves",
    "montage",
    "not_drawn",
    "paper_table",
    "plain",
    "reliability",
    "render_report",
    "report_data",
    "scan_figures",
    "score_strips",
    "sensitivity_map",
    "summary_table",
    "to_latex",
    "to_markdown",
    "variance_against_dice",
    "variance_bars",
    "write_report",
]
