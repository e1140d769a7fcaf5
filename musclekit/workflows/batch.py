"""Work on the scans of a run one by one, or several at a time: a fault in one leaves the others alone."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from musclekit.errors import InputError, MusclekitError, OutputError, ParameterError
from musclekit.workflows.inputs import find_scans, scan_names
from musclekit.workflows.outcome import OnProgress, ScanOutcome
from musclekit.workflows.record import file_hash

__all__ = ["Batch", "Job", "naming_fates", "scan_records"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One scan to work on.

    Parameters
    ----------
    path : Path
        The scan.
    name : str
        Of the scan, unique in its run.
    folder : Path
        Where its files are written.
    """

    path: Path
    name: str
    folder: Path


@dataclass(frozen=True)
class Batch:
    """The scans of a run.

    Parameters
    ----------
    jobs : tuple of Job
        What is to be done.
    refused : tuple of ScanOutcome
        Of several paths given, those that lead to no scan.
    """

    jobs: tuple[Job, ...]
    refused: tuple[ScanOutcome, ...]

    @classmethod
    def find(cls, scans: Sequence[Path], out: Path) -> Batch:
        """Find the scans meant by files and folders.

        Parameters
        ----------
        scans : sequence of Path
            As `musclekit.workflows.inputs.find_scans` takes them.
        out : Path
            Folder to write to. One scan is written straight into it; several get a subfolder each.

        Raises
        ------
        InputError
            If there is no scan, or a single path is given and leads to none.
        """
        if not scans:
            raise InputError("no scan was given")
        found: list[Path] = []
        refused: list[ScanOutcome] = []
        for given in scans:
            try:
                found += find_scans([given])
            except InputError as problem:
                if len(scans) == 1:
                    raise
                refused.append(ScanOutcome(given.name or str(given), given, "failed", message=str(problem)))
        if not found:
            raise InputError("; ".join(outcome.message for outcome in refused))
        paths = list(dict.fromkeys(found))
        alone = len(paths) == 1 and not refused
        jobs = (
            Job(path, name, out if alone else out / name) for path, name in zip(paths, scan_names(paths), strict=True)
        )
        return cls(tuple(jobs), tuple(refused))

    def run(
        self, do: Callable[[Job], ScanOutcome], *, processes: int = 1, progress: OnProgress | None = None
    ) -> list[ScanOutcome]:
        """Do the work and return what became of every scan, in their order, those refused last.

        Parameters
        ----------
        do : callable
            The work on one scan; it can be pickled where there are several processes.
        processes : int
            Scans worked on at the same time.
        progress : callable, optional
            Called after each scan with (done, total, name).

        Raises
        ------
        MusclekitError
            What the work raises, if there is a single scan; in a batch it becomes a failed outcome.
        """
        if processes < 1:
            raise ParameterError(f"jobs must be 1 or more, not {processes}")
        if len(self.jobs) == 1 and not self.refused:
            outcomes = [do(self.jobs[0])]
            if progress is not None:
                progress(1, 1, self.jobs[0].name)
            return outcomes
        outcomes = []
        for outcome in _outcomes(self.jobs, do, processes):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(self.jobs), outcome.name)
        order = {job.name: position for position, job in enumerate(self.jobs)}
        return [*sorted(outcomes, key=lambda outcome: order[outcome.name]), *self.refused]


def _outcomes(jobs: Sequence[Job], do: Callable[[Job], ScanOutcome], processes: int) -> Iterator[ScanOutcome]:
    """Yield the outcome of each scan as it comes."""
    if processes == 1:
        yield from (_do_or_fail(job, do) for job in jobs)
        return
    from joblib import Parallel, delayed, parallel_config

    given = {job.name: job for job in jobs}
    # A worker may be one of an earlier call, made in another working directory.
    absolute = [replace(job, path=job.path.absolute(), folder=job.folder.absolute()) for job in jobs]
    # One thread a worker: the processes are what runs in parallel.
    with parallel_config(backend="loky", inner_max_num_threads=1):
        outcomes = Parallel(n_jobs=min(processes, len(jobs)), return_as="generator_unordered")(
            delayed(_do_or_fail)(job, do, one_thread=True) for job in absolute
        )
        for outcome in outcomes:
            job = given[outcome.name]
            yield replace(outcome, path=job.path, folder=None if outcome.folder is None else job.folder)


def _do_or_fail(job: Job, do: Callable[[Job], ScanOutcome], *, one_thread: bool = False) -> ScanOutcome:
    if one_thread:
        import cv2
        import SimpleITK as sitk

        cv2.setNumThreads(1)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    began = time.perf_counter()
    try:
        return do(job)
    except MusclekitError as problem:
        message = str(problem)
    except Exception as problem:  # a fault of ours in one scan must not take the night's batch with it
        where = traceback.extract_tb(problem.__traceback__)[-1]
        message = f"unexpected {type(problem).__name__} in {Path(where.filename).name}:{where.lineno}: {problem}"
        logger.debug("%s", job.path, exc_info=True)
    return ScanOutcome(
        job.name,
        job.path,
        "failed",
        message=message,
        seconds=time.perf_counter() - began,
        input_hash=file_hash(job.path) if os.access(job.path, os.R_OK) else "",
    )


@contextmanager
def naming_fates(outcomes: Sequence[ScanOutcome]) -> Iterator[None]:
    """Add what became of each scan to the error of a report that could not be written: it must not be lost with it."""
    try:
        yield
    except OutputError as problem:
        fates = "; ".join(f"{item.name} {item.status}{f' ({item.message})' * bool(item.message)}" for item in outcomes)
        raise OutputError(f"{problem}. Scans: {fates}") from problem


def scan_records(outcomes: Sequence[ScanOutcome]) -> list[dict[str, Any]]:
    """Return what the record of a run says of its scans."""
    return [
        {
            "name": outcome.name,
            "path": str(outcome.path),
            "sha256": outcome.input_hash,
            "status": outcome.status,
            "message": outcome.message,
            "warnings": list(outcome.warnings),
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in outcomes
    ]
