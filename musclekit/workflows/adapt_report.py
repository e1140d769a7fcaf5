"""The report of an adaptation: what went in, how stage 1 went, what was judged, how stage 2 went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from musclekit.report import LegColumn, Picture, Report, ScanSection, Table, leg_sheet, loss_curves
from musclekit.workflows.adapt_images import read_images
from musclekit.workflows.adapt_stages import MADE_OF, RANKING, STAGES, Run, Stage, read_judgement
from musclekit.workflows.record import versions

__all__ = ["adaptation_report", "images_sheet", "judged_sheet", "stage_notes", "stage_states"]

#: Slices on a sheet.
SHOWN = 8


def stage_notes(run: Run) -> tuple[str, ...]:
    """Return what was to be said of the images and of their judgement."""
    notes: list[str] = []
    with_notes: tuple[Stage, ...] = ("images", "judge")
    for stage in with_notes:
        path = run.folder(stage) / MADE_OF
        if path.is_file():
            notes += json.loads(path.read_text(encoding="utf-8"))["notes"]
    return tuple(notes)


def stage_states(run: Run) -> dict[str, str]:
    """Return how far each stage is."""
    states: dict[str, str] = {}
    for stage in STAGES:
        if stage == "joint" and run.plan.start is not None:
            states[stage] = f"left out: stage 2 starts from {run.plan.start}"
        elif stage in ("joint", "tune"):
            total = run.plan.schedule.epochs if stage == "joint" else run.plan.tune.epochs
            states[stage] = f"{run.epochs_done(stage)} of {total} epochs"
        else:
            states[stage] = "done" if run.is_done(stage) else "not done"
    return states


def images_sheet(run: Run, name: str) -> bytes:
    """Draw some images of a part as they are learnt from: spread over all of them, with labels or compartment."""
    images = read_images(run.folder("images"), name)
    at = _spread(len(images.table))
    classes = np.asarray(images.classes[at])
    columns = [LegColumn("image", images.images[at]), LegColumn("labels", images.images[at], classes)]
    if not classes.any():
        room = np.where(images.room[at], np.uint8(1), np.uint8(0))
        columns[1] = LegColumn("muscle compartment", images.images[at], room)
    return leg_sheet(columns, [images.ids[k] for k in at], run.plan.labels)


def judged_sheet(run: Run) -> bytes:
    """Draw images from the surest to the least sure, with what was made of them and what is left of it."""
    target = read_images(run.folder("images"), "target")
    classes, _ = read_judgement(run)
    table = pd.read_csv(run.folder("judge") / RANKING)
    order = np.argsort(table["rank"].to_numpy())
    at = order[_spread(len(order))]
    names = [
        f"{row['image']}: rank {row['rank']}, {row['entropy_bits']:.3f} bits, {row['split']}"
        for _, row in table.iloc[at].iterrows()
    ]
    columns = [
        LegColumn("image", target.images[at]),
        LegColumn("its own labels", target.images[at], np.asarray(classes[at])),
        LegColumn("compartment", target.images[at], np.where(target.room[at], np.uint8(1), np.uint8(0))),
    ]
    return leg_sheet(columns, names, run.plan.labels)


def adaptation_report(run: Run, warnings: Sequence[str], started: datetime) -> Report:
    """Return the report of what is done so far."""
    sections = [_images_section(run)]
    if run.epochs_done("joint"):
        sections.append(_learning_section(run, "joint", "Stage 1: translation and segmentation"))
    if run.is_done("judge"):
        sections.append(_judgement_section(run))
    if run.epochs_done("tune"):
        sections.append(_learning_section(run, "tune", "Stage 2: its own labels"))
    states = pd.DataFrame([{"stage": stage, "state": state} for stage, state in stage_states(run).items()])
    kept = "the epoch with the best mean Dice of the validation" if run.plan.validation_split else "the last epoch"
    return Report(
        "Adaptation of a segmenter",
        subtitle=f"{run.plan.source.contrast} to {run.plan.target.contrast}, {run.plan.labels.name}",
        date=started.date().isoformat(),
        scans=[section for section in sections if section is not None],
        tables=[Table("Stages", states, f"Of either stage that learns {kept} is kept.")],
        warnings=list(warnings),
        parameters={"plan": run.plan.as_data(), "versions": versions()},
    )


def _images_section(run: Run) -> ScanSection | None:
    if not run.is_done("images"):
        return None
    parts = ["source", "target", *(["validation"] if run.plan.validation_split else [])]
    rows, pictures = [], []
    for name in parts:
        images = read_images(run.folder("images"), name)
        rows.append({"part": name, "subjects": len(set(images.subjects)), "images": len(images.table)})
        what = "labels as they are learnt" if name != "target" else "the muscle compartment that labels are cleaned by"
        pictures.append(Picture(name, images_sheet(run, name), f"Images of the {name}, with {what}"))
    return ScanSection("Images", tables=[Table("What is learnt from", pd.DataFrame(rows))], pictures=pictures)


def _learning_section(run: Run, stage: Stage, title: str) -> ScanSection:
    losses = pd.read_csv(run.folder(stage) / "losses.csv")
    return ScanSection(title, tables=[Table("Losses", losses, "Means over each epoch.", folded=True)],
                       figures=loss_curves(losses))  # fmt: skip


def _judgement_section(run: Run) -> ScanSection:
    table = pd.read_csv(run.folder("judge") / RANKING)
    split = table.groupby("split").agg(
        images=("image", "count"), least_bits=("entropy_bits", "min"), most_bits=("entropy_bits", "max"),
        removed=("removed", "mean"),
    ).reset_index()  # fmt: skip
    return ScanSection(
        "Judgement of its own labels",
        tables=[
            Table(
                "Easy and hard images",
                split,
                "Entropy in bits; removed: mean share of labels outside the muscle compartment or in bone.",
            ),
            Table("Ranking", table, "From the manifest's first image to its last.", folded=True),
        ],
        pictures=[Picture("From the surest to the least sure", judged_sheet(run), "Images, labels, compartment")],
    )  # fmt: skip


def _spread(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, SHOWN)).round().astype(int))
