"""Check a manifest, a score table, a plan, a calibration or a report against its schema."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from musclekit.errors import FormatError, MissingFileError
from musclekit.evaluation.scores import read_scores
from musclekit.evaluation.search import read_plan
from musclekit.io import read_manifest, read_toml
from musclekit.schemas import check_schema
from musclekit.uncertainty import DiceCalibration

__all__ = ["validate_file"]


def validate_file(path: Path) -> dict[str, Any]:
    """Check one file against its schema, and that everything it names exists.

    Parameters
    ----------
    path : Path
        A CSV file is a score table if it has the columns ``metric`` and ``value``, else a manifest; a TOML file is a
        plan, of a training or an adaptation if it says ``kind = "train"`` or ``"adapt"``, else of a search; a JSON
        file is a calibration of the Dice or the data of a report.

    Returns
    -------
    dict
        ``file``, ``kind`` and counts of what it holds.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    FormatError
        If it is neither CSV, TOML nor JSON, or is not what its name says.
    SchemaError
        At the first thing that is wrong; the message says where it is.
    InputError
        If a plan cannot be searched or trained: a method or parameter that does not exist, a segmenter that cannot take
        what its translator gives, slices that do not suit a network.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    match path.suffix.lower():
        case ".csv":
            return _validate_csv(path)
        case ".toml":
            return _validate_plan(path)
        case ".json":
            return _validate_json(path)
        case other:
            known = "a manifest or score table is a .csv, a plan a .toml, a report or calibration a .json"
            raise FormatError(f"{path}: {known}, not '{other}'")


def _validate_csv(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream), [])
    except UnicodeDecodeError:
        raise FormatError(f"{path}: not a text file") from None
    if {"metric", "value"} <= set(header):
        scores = read_scores(path)
        failed = int((scores["status"] != "ok").sum())
        return {"file": str(path), "kind": "scores", "rows": len(scores), "rows not ok": failed}
    rows = read_manifest(path)
    return {
        "file": str(path),
        "kind": "manifest",
        "cases": len({row.case_id for row in rows}),
        "subjects": len({row.subject for row in rows}),
        "images": sum(row.image is not None for row in rows),
        "with labels": len({row.case_id for row in rows if row.labels is not None}),
    }


def _validate_plan(path: Path) -> dict[str, Any]:
    data = read_toml(path)
    if data.get("kind") == "adapt":
        return _validate_adaptation(path)
    if data.get("kind") == "train":
        return _validate_segmenter_training(path) if data.get("task") == "segment" else _validate_training(path)
    plan = read_plan(path)
    return {
        "file": str(path),
        "kind": "plan",
        "method": plan.method["name"],
        "grid points": len(plan.points),
        "chosen by": plan.metric,
    }


def _validate_training(path: Path) -> dict[str, Any]:
    from musclekit.neural.training.plan import read_train_plan  # torch takes seconds

    plan = read_train_plan(path)
    return {
        "file": str(path),
        "kind": "plan",
        "trains": f"{plan.source} to {plan.target}",
        "generator": plan.generator["name"],
        "loss": ", ".join(f"{name} {weight:g}" for name, weight in plan.loss.weights.items()),
        "epochs": plan.schedule.epochs,
    }


def _validate_adaptation(path: Path) -> dict[str, Any]:
    from musclekit.neural.adaptation.plan import read_adapt_plan  # torch takes seconds

    plan = read_adapt_plan(path)
    return {
        "file": str(path),
        "kind": "plan",
        "adapts": f"{plan.labels.name} from {plan.source.contrast} to {plan.target.contrast}",
        "network": plan.segmenter["name"],
        "loss": ", ".join(f"{name} {weight:g}" for name, weight in plan.loss.weights.items()),
        "epochs": f"{0 if plan.start else plan.schedule.epochs} and {plan.tune.epochs}",
    }


def _validate_segmenter_training(path: Path) -> dict[str, Any]:
    from musclekit.neural.training.segmenter_plan import read_segmenter_plan  # torch takes seconds

    plan = read_segmenter_plan(path)
    return {
        "file": str(path),
        "kind": "plan",
        "trains": f"{plan.labels.name} in {', '.join(plan.contrasts)}",
        "network": plan.network["name"],
        "view": plan.view.kind,
        "loss": ", ".join(f"{name} {weight:g}" for name, weight in plan.loss.weights.items()),
        "epochs": plan.schedule.epochs,
    }


def _validate_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise FormatError(f"{path}: not JSON: {problem}") from None
    if isinstance(data, dict) and "class_reduction" in data:
        calibration = DiceCalibration.load(path)
        lines = len(calibration.structures)
        return {"file": str(path), "kind": "calibration", "structures": lines, "subjects": len(calibration.subjects)}
    check_schema(data, "report", f"report {path.name}")
    return {
        "file": str(path),
        "kind": "report",
        "title": data["title"],
        "tables": len(data["tables"]),
        "scans": len(data["scans"]),
        "failures": len(data["failures"]),
    }
