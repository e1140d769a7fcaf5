"""The stages of an adaptation on disk: each finds what those before it left, and does not do again what is done."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from musclekit.errors import FormatError, InputError, LeakError, MusclekitError
from musclekit.io import ManifestRow, load_case, replacing
from musclekit.workflows.adapt_images import LegImages, leg_images, read_images, write_images
from musclekit.workflows.cases import ManifestCases
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import file_hash, write_json

if TYPE_CHECKING:
    from musclekit.neural.adaptation.plan import AdaptPlan
    from musclekit.neural.adaptation.slices import SourceSlices

__all__ = [
    "FOLDERS",
    "MADE_OF",
    "RANKING",
    "STAGES",
    "Parts",
    "Run",
    "Stage",
    "check_beginning",
    "judge_target",
    "learn_translation",
    "parts_of",
    "prepare_images",
    "read_judgement",
    "start_of",
    "tune_segmenter",
]

Stage = Literal["images", "joint", "judge", "tune"]
STAGES: tuple[Stage, ...] = ("images", "joint", "judge", "tune")
#: Folders of the stages in the folder of the run.
FOLDERS: Mapping[Stage, str] = {"images": "images", "joint": "joint", "judge": "judged", "tune": "tuned"}
#: What says of which input the files of a folder were made, and what is to be said of them.
MADE_OF = "made_of.json"
#: Tables and arrays of the judgement.
RANKING, CLASSES = "ranking.csv", "classes.npy"


@dataclass(frozen=True)
class Parts:
    """Ids of the cases of each part.

    Parameters
    ----------
    source, target, validation : tuple of str
        Labelled scans, scans to adapt to, and labelled ones of these by which an epoch is chosen.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """An adaptation under way.

    Parameters
    ----------
    plan : AdaptPlan
        What is done.
    out : Path
        Where.
    device : str
        On what.
    jobs : int, optional
        Processors.
    until : int, optional
        Epoch of a stage after which to stop for now.
    progress : callable, optional
        Told how far it is.
    """

    plan: AdaptPlan
    out: Path
    device: str = "cpu"
    jobs: int | None = None
    until: int | None = None
    progress: OnProgress | None = None

    def folder(self, stage: Stage) -> Path:
        """Where the files of a stage lie."""
        return self.out / FOLDERS[stage]

    def epochs_done(self, stage: Stage) -> int:
        """Whole epochs of a stage that learns."""
        path = self.folder(stage) / "losses.csv"
        return 0 if not path.is_file() else len(pd.read_csv(path))

    def is_done(self, stage: Stage) -> bool:
        """Whether a stage has nothing left to do."""
        if stage == "joint":
            return self.plan.start is not None or self.epochs_done(stage) >= self.plan.schedule.epochs
        if stage == "tune":
            return self.epochs_done(stage) >= self.plan.tune.epochs
        return (self.folder(stage) / MADE_OF).is_file()

    def need(self, stage: Stage, before: Stage) -> None:
        """Refuse to begin a stage where one that it stands on is not done.

        Raises
        ------
        InputError
            If it is not; the message says how far it is.
        """
        if not self.is_done(before):
            far = ""
            if before == "joint":
                far = f", which has done {self.epochs_done(before)} of {self.plan.schedule.epochs} epochs"
            raise InputError(f"stage '{stage}' stands on stage '{before}'{far}: run that first")


def parts_of(cases: ManifestCases, plan: AdaptPlan) -> Parts:
    """Return which cases are which part of an adaptation.

    Raises
    ------
    InputError
        If a part is empty, or the manifest has no such split.
    LeakError
        If a scan of the validation shows somebody who is learnt from.
    """
    splits = sorted({rows[0].split for rows in cases.rows if rows[0].split is not None})
    for wanted in (plan.source.split, plan.target.split, plan.validation_split):
        if wanted is not None and wanted not in splits:
            raise InputError(f"{cases.path}: no case is in split '{wanted}'; there are: {', '.join(splits) or 'none'}")

    def shown(contrast: object, split: str | None) -> list[Sequence[ManifestRow]]:
        return [
            rows
            for rows in cases.rows
            if any(row.modality in (None, contrast) and row.image is not None for row in rows)
            and (split is None or rows[0].split == split)
        ]

    labelled = [rows for rows in shown(plan.source.contrast, plan.source.split) if rows[0].labels is not None]
    targets = shown(plan.target.contrast, plan.target.split)
    chosen_by: list[Sequence[ManifestRow]] = []
    if plan.validation_split is not None:
        targets = [rows for rows in targets if rows[0].split != plan.validation_split]
        chosen_by = [r for r in shown(plan.target.contrast, plan.validation_split) if r[0].labels is not None]
        if not chosen_by:
            raise InputError(
                f"{cases.path}: no {plan.target.contrast} scan with labels is in split '{plan.validation_split}'"
            )
    if not labelled:
        raise InputError(f"{cases.path}: no {plan.source.contrast} scan has labels: there is nothing to learn from")
    if not targets:
        raise InputError(f"{cases.path}: there is no {plan.target.contrast} scan to adapt to")
    learnt_from = {rows[0].subject for rows in (*labelled, *targets)}
    both = sorted({rows[0].subject for rows in chosen_by} & learnt_from)
    if both:
        raise LeakError(f"{cases.path}: subject '{both[0]}' is learnt from and stands in the validation")
    return Parts(*(tuple(rows[0].case_id for rows in part) for part in (labelled, targets, chosen_by)))


def check_beginning(run: Run, cases: ManifestCases, parts: Parts) -> None:
    """Refuse, before scans are opened, a segmenter to start from that does not fit the plan or knows who validates.

    Raises
    ------
    CheckpointError
        If it gives or sees something else than the plan says.
    LeakError
        If it learnt from somebody by whom an epoch is to be chosen.
    """
    from musclekit.neural.adaptation.stages import check_start
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.checkpoint import read_card

    if run.plan.start is None:
        return
    card = read_card(start_of(run), SegmenterCard)
    check_start(run.plan, card)
    known = sorted({cases.subjects[case_id] for case_id in parts.validation} & set(card.training_subjects))
    if known:
        raise LeakError(f"the segmenter to start from learnt from subject '{known[0]}', who is in the validation")


def prepare_images(run: Run, cases: ManifestCases, parts: Parts) -> None:
    """Cut the images of all parts, unless that is done.

    Raises
    ------
    InputError
        If scans cannot be used: all of them are named. If a part has no image, or the folder holds those of others.
    OutputError
        If they cannot be written.
    """
    folder = run.folder("images")
    identity = _images_identity(run.plan, cases, parts)
    if _made(folder, identity):
        return
    legs: dict[str, list[LegImages]] = {"source": [], "target": [], "validation": []}
    problems: list[str] = []
    every = [(name, case_id) for name in legs for case_id in getattr(parts, name)]
    rows = {of[0].case_id: of for of in cases.rows}
    for n, (name, case_id) in enumerate(every):
        if run.progress is not None:
            run.progress(n, len(every), f"images: {case_id}")
        try:
            # Labels that scans of the target may have play no part in it.
            case = load_case(rows[case_id]) if name == "target" else cases.open(case_id)
            found = leg_images(
                case,
                rows[case_id],
                run.plan,
                run.plan.source if name == "source" else run.plan.target,
                labelled=name != "target",
                with_room=name == "target",
            )
            legs[name] += list(found)
        except MusclekitError as problem:
            problems.append(str(problem))
    if problems:
        raise InputError(f"{len(problems)} of {len(every)} scans cannot be used: {'; '.join(problems)}")
    notes = [f"case '{leg.case_id}': {note}" for part in legs.values() for leg in part for note in leg.notes]
    for name, part in legs.items():
        if name != "validation" or parts.validation:
            write_images(part, folder, name)
    target = read_images(folder, "target")
    empty = [row["image"] for row in target.table if row["room_px"] == "0"]
    if empty:
        notes.append(
            f"no muscle compartment was found in {len(empty)} images of the target, which count as hard: "
            f"{', '.join(empty[:10])}{' ...' if len(empty) > 10 else ''}"
        )
    write_json({"identity": identity, "notes": notes}, folder / MADE_OF)


def learn_translation(run: Run) -> None:
    """Learn translators and a segmenter together (stage 1), unless that is done or the plan starts elsewhere."""
    from musclekit.neural.adaptation.stages import learn_jointly

    if run.plan.start is not None:
        return
    run.need("joint", "images")
    source, target = (read_images(run.folder("images"), name) for name in ("source", "target"))
    learn_jointly(
        run.plan,
        source.as_source(),
        target.as_target(),
        run.folder("joint"),
        scales=(source.scale, target.scale),
        validation=_validation(run),
        device=run.device,
        threads=run.jobs,
        until=run.until,
        progress=run.progress,
    )


def judge_target(run: Run) -> None:
    """Let the segmenter judge the images of the target, unless that is done."""
    from musclekit.neural.adaptation.stages import judge
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.checkpoint import load_checkpoint

    run.need("judge", "images")
    run.need("judge", "joint")
    network, card = load_checkpoint(start_of(run), SegmenterCard)
    folder = run.folder("judge")
    images = (run.folder("images") / MADE_OF).read_text(encoding="utf-8")
    identity = {
        "segmenter": card.weights_sha256,
        "pseudo": run.plan.as_data()["pseudo"],
        "images": hashlib.sha256(images.encode()).hexdigest(),
    }
    if _made(folder, identity):
        return
    target = read_images(run.folder("images"), "target")
    judged = judge(
        run.plan, network, target.as_target(), target.body, target.room, device=run.device, progress=run.progress
    )
    with replacing(folder / CLASSES) as temporary, temporary.open("wb") as stream:
        np.save(stream, judged.classes, allow_pickle=False)
    names = run.plan.labels.names
    with replacing(folder / RANKING) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["image", "entropy_bits", "rank", "split", "removed", *(f"removed {name}" for name in names)])
        for n, (image, cleaned) in enumerate(zip(judged.ranking.ids, judged.cleaned, strict=True)):
            split = "demoted" if judged.demoted[n] else "easy" if judged.easy[n] else "hard"
            shares = [_share(cleaned.share), *map(_share, cleaned.removed.tolist())]
            score = f"{judged.ranking.scores[n]:.6f}"
            table.writerow([image, score, int(judged.ranking.ranks[n]), split, *shares])
    demoted = [image for image, low in zip(judged.ranking.ids, judged.demoted, strict=True) if low]
    notes = []
    if demoted:
        notes.append(
            f"{len(demoted)} images that looked easy count as hard, since cleaning took more than "
            f"{run.plan.pseudo.most_removed:.0%} of their labels or there were none: {', '.join(demoted[:10])}"
            f"{' ...' if len(demoted) > 10 else ''}"
        )
    write_json({"identity": identity, "notes": notes}, folder / MADE_OF)


def tune_segmenter(run: Run) -> None:
    """Let the segmenter go on learning from its own labels (stage 2), unless that is done."""
    from musclekit.neural.adaptation.stages import tune
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.checkpoint import load_checkpoint

    run.need("tune", "judge")
    network, card = load_checkpoint(start_of(run), SegmenterCard)
    classes, easy = read_judgement(run)
    target = read_images(run.folder("images"), "target")
    tune(
        run.plan,
        network,
        card,
        target.as_target(),
        classes,
        easy,
        run.folder("tune"),
        validation=_validation(run),
        device=run.device,
        threads=run.jobs,
        until=run.until,
        progress=run.progress,
    )


def read_judgement(run: Run) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the labels of the images of the target, and which of these are easy.

    Raises
    ------
    FormatError
        If the files are missing or damaged.
    """
    folder = run.folder("judge")
    try:
        classes: NDArray[np.uint8] = np.load(folder / CLASSES, mmap_mode="r", allow_pickle=False)
        table = pd.read_csv(folder / RANKING)
        easy = (table["split"] == "easy").to_numpy(dtype=bool)
    except (OSError, ValueError, KeyError) as problem:
        raise FormatError(f"{folder}: the judgement is missing or damaged ({problem}); remove the folder") from problem
    if len(easy) != len(classes):
        raise FormatError(f"{folder}: {RANKING} and {CLASSES} do not belong together; remove the folder")
    return classes, easy


def start_of(run: Run) -> Path:
    """Return the checkpoint that stage 2 stands on."""
    from musclekit.neural.adaptation.stages import NETWORK
    from musclekit.weights import checkpoint_path

    return run.folder("joint") / NETWORK if run.plan.start is None else checkpoint_path(run.plan.start)


def _validation(run: Run) -> SourceSlices | None:
    if run.plan.validation_split is None:
        return None
    return read_images(run.folder("images"), "validation").as_source()


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _images_identity(plan: AdaptPlan, cases: ManifestCases, parts: Parts) -> dict[str, Any]:
    """Return, as plain data, all that the images depend on."""
    data = plan.as_data()
    said = {name: data.get(name) for name in ("source", "target", "labels", "view", "margin_steps", "validation_split")}
    chosen = {*parts.source, *parts.target, *parts.validation}
    files = {}
    for rows in cases.rows:
        if rows[0].case_id in chosen:
            paths = [row.image for row in rows] + [rows[0].labels]
            files[rows[0].case_id] = {
                "files": [file_hash(path) for path in paths if path is not None],
                "columns": {name: rows[0].extra[name] for name in ("margin_mm", "slices") if name in rows[0].extra},
                "side": rows[0].side,
            }
    return {"plan": said, "cases": files}


def _made(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the files of a folder are there and were made of this.

    Raises
    ------
    InputError
        If they were made of something else.
    """
    path = folder / MADE_OF
    if not path.is_file():
        return False
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (ValueError, KeyError, TypeError) as problem:
        raise FormatError(f"{path}: damaged; remove the folder") from problem
    if known != json.loads(json.dumps(identity)):
        raise InputError(
            f"{folder} was made of other scans, another plan or another segmenter; results are never mixed: choose "
            "another folder, or remove this one"
        )
    return True
