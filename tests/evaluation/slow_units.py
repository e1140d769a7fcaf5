"""Units for the tests, in a module that worker processes can import; run as a script it does some of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from musclekit.errors import SegmentationError
from musclekit.evaluation.units import Unit, UnitResult, Workers
from musclekit.memory import remembered


@remembered(lasts=True)
def dear(n: int) -> NDArray[np.float64]:
    """Take long, once."""
    return np.array([n / 3.0])


def note(folder: Path, text: str) -> None:
    """Leave a file that says that something was done."""
    (folder / f"{text}-{os.getpid()}-{time.monotonic_ns()}").touch()


def work(shared: dict[str, NDArray[np.float64]], n: int, folder: Path | None = None, pause: float = 0.0) -> UnitResult:
    """Do a little, slowly."""
    if folder is not None:
        note(folder, f"began{n}")
        time.sleep(pause)
    table = pd.DataFrame(
        {
            "name": ["NA", "007", ""],
            "value": [float(shared["x"].sum()) / (n + 3), np.nan, 0.1 + 0.2],
            "slice": pd.array([n, None, 2], dtype="Int64"),
            "count": [n, 2, 3],
            "good": [True, False, True],
        }
    )
    if folder is not None:
        note(folder, f"ended{n}")
    return UnitResult({"values": table}, {"labels": np.full((2, 3), n, dtype=np.uint8), "dear": dear(n % 2)})


def threads(shared: None) -> UnitResult:
    """Say how many threads each library would use."""
    counts = [cv2.getNumThreads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()]
    counts += [pool["num_threads"] for pool in threadpool_info()]
    return UnitResult(arrays={"threads": np.array(counts)})


def fails(shared: None, n: int) -> UnitResult:
    """Do the first two, and fail at the third."""
    if n == 2:
        raise SegmentationError("unit 2 has nothing to stand on")
    return UnitResult(arrays={"n": np.array(n)})


def dies(shared: Path, n: int, times: int) -> UnitResult:
    """Take the process down so many times."""
    if n == 1 and len(list(shared.glob("died*"))) < times:
        note(shared, "died")
        os.kill(os.getpid(), signal.SIGKILL)
    return UnitResult(arrays={"n": np.array(n)})


def units(folder: Path | None = None, pause: float = 0.0) -> list[Unit]:
    return [Unit(f"unit-{n}", (n, folder, pause)) for n in range(8)]


SHARED = {"x": np.linspace(0.0, 1.0, 1001)}

if __name__ == "__main__":
    from tests.evaluation import slow_units as imported  # by the name that a worker can import it under

    results, notes, jobs, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    with Workers(SHARED, jobs=jobs, folder=results, identity="a") as workers:
        for done in workers.run(imported.work, imported.units(notes, pause)):
            print(done.unit.key, flush=True)
