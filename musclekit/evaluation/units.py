"""Independent units of work: in this process, in several, or on a Dask cluster; each is kept as soon as it is done.

What a unit gives depends on its arguments alone, so it does not matter where it runs, in which order, or whether an
earlier call has done it. Every unit runs on one thread: sums would depend on how many share them.
"""

from __future__ import annotations

import io
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import joblib
import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib.externals.loky import ProcessPoolExecutor
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from musclekit.errors import InputError, WorkerError
from musclekit.io.atomic import replacing
from musclekit.memory import Memory, remembering

__all__ = ["Finished", "Unit", "UnitResult", "Workers", "read_result", "write_result"]

#: How long a scheduler may take to answer, and a cluster without workers to get one.
CONNECT_S = 10
FIRST_WORKER_S = 60
#: When no unit is done for so long, it is looked whether there are workers at all.
LOOK_S = 20
#: So often in a row workers may die before a single unit is done.
MOST_LOSSES = 3
#: An idle worker process of a search whose main process was killed ends after this.
IDLE_S = 60

_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
        "OPENCV_FOR_THREADS_NUM",
    ),
    "1",
)
#: Every entry of a result file has this date: the same result is the same bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Parameters
    ----------
    key : str
        Names it and its file: letters, digits, ``-``, ``_`` and ``.``, unique in its folder.
    arguments : tuple
        What the work is called with after what all units share; picklable.
    weight : float
        How much work it is, beside the others.
    """

    key: str
    arguments: tuple[Any, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class UnitResult:
    """What a unit gives: tables and arrays, never objects.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Columns of text, booleans, integers or floats; text has no missing values. Floats come back to the last bit.
    arrays : mapping of str to ndarray
        Of numbers.
    lasting : mapping of str to ndarray
        Lasting results (`musclekit.memory.Memory.lasting`) that the unit found; filled in by `Workers`.
    """

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    lasting: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A unit, what it gave, and whether an earlier call had done it."""

    unit: Unit
    result: UnitResult
    stored: bool


class Workers:
    """Whoever does units of work; a context manager.

    Each worker process keeps one `musclekit.memory.Memory` from unit to unit. Lasting results are stored with the unit
    that found them and handed to all units that start later.

    Parameters
    ----------
    shared : object
        What all units are given first (the cases): sent to each worker once. Picklable.
    jobs : int
        Worker processes on this machine; 1 works in this process.
    scheduler : str, optional
        Address of a Dask scheduler (``tcp://host:port``) whose workers work instead.
    folder : Path, optional
        Where results are kept. Nothing is kept if left out.
    identity : str
        What the results depend on besides the key (a digest of plan and data): a stored result of another identity is
        not used.
    memory_bytes : int
        Of each worker's memory.

    Attributes
    ----------
    lasting : dict of str to ndarray
        All lasting results found so far; may be filled before the first unit.

    Raises
    ------
    InputError
        On entering: if ``jobs`` is not positive, both jobs and a scheduler are asked for, the scheduler cannot be
        reached or has no workers, or Dask is not installed.
    """

    def __init__(
        self,
        shared: Any = None,
        *,
        jobs: int = 1,
        scheduler: str | None = None,
        folder: Path | None = None,
        identity: str = "",
        memory_bytes: int = 1 << 30,
    ) -> None:
        if jobs < 1:
            raise InputError(f"jobs must be at least 1, not {jobs}")
        if scheduler is not None and jobs > 1:
            raise InputError("give either jobs (processes on this machine) or a scheduler (a Dask cluster), not both")
        self.shared = shared
        self.jobs = jobs
        self.scheduler = scheduler
        self.folder = folder
        self.identity = identity
        self.memory_bytes = memory_bytes
        self.lasting: dict[str, NDArray[Any]] = {}
        self._token = secrets.token_hex(8)
        self._stack = ExitStack()
        self._place: _Here | _Processes | _Cluster | None = None

    def __enter__(self) -> Self:
        if self.scheduler is not None:
            self._place = _Cluster(self.scheduler, self.shared)
        elif self.jobs > 1:
            self._place = _Processes(self.jobs, self.shared)
        else:
            self._place = _Here(self.shared)
        self._stack.callback(self._place.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        _release(self._token)

    def run(self, work: Callable[..., UnitResult], units: Iterable[Unit]) -> Iterator[Finished]:
        """Do units; give each when it is done and stored, in the order in which that happens.

        Parameters
        ----------
        work : callable
            A function of a module: ``work(shared, *unit.arguments)``. What it gives depends on these alone.
        units : iterable of Unit
            Taken one by one as workers become free, so a generator may open the scans of a unit when its turn comes.

        Yields
        ------
        Finished
            Stored results of earlier calls are given without work; a file that is damaged is worked out anew.

        Raises
        ------
        WorkerError
            If workers keep dying. Whatever was finished is stored: another call goes on from there.
        Exception
            What ``work`` raises; so does it stop at KeyboardInterrupt. Units in flight are lost, none else.
        """
        if self._place is None:
            raise RuntimeError("Workers is a context manager: use it in a with statement")
        waiting = _checked_keys(units)
        in_flight: dict[Future[UnitResult], Unit] = {}
        again: list[Unit] = []
        losses = 0
        try:
            while True:
                while len(in_flight) < self._place.room():
                    unit = again.pop(0) if again else next(waiting, None)
                    if unit is None:
                        break
                    known = self._stored(unit)
                    if known is not None:
                        self.lasting.update(known.lasting)
                        yield Finished(unit, known, stored=True)
                        continue
                    future = self._place.submit(
                        self._token, self.memory_bytes, dict(self.lasting), work, unit.arguments
                    )
                    in_flight[future] = unit
                if not in_flight:
                    return
                done, _ = wait(in_flight, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                if not done:
                    self._place.look()
                finished: list[Finished] = []
                problems: list[BaseException] = []
                lost: BaseException | None = None
                for future in done:
                    unit = in_flight.pop(future)
                    try:
                        finished.append(Finished(unit, self._keep(unit, future.result()), stored=False))
                    except self._place.losses as problem:
                        lost = problem
                        again.append(unit)
                    except BaseException as problem:  # what is done is stored before it goes on its way
                        problems.append(problem)
                yield from finished
                if problems:
                    raise problems[0]
                if finished:
                    losses = 0
                if lost is not None:
                    again += in_flight.values()
                    in_flight.clear()
                    losses += 1
                    if losses == MOST_LOSSES:
                        raise WorkerError(self._lost_message(again)) from lost
                    self._place.restart()
        finally:
            for future in in_flight:
                future.cancel()

    def _lost_message(self, units: list[Unit]) -> str:
        kept = "" if self.folder is None else f"; what is done is kept in {self.folder}: run again to do the rest"
        return (
            f"workers died {MOST_LOSSES} times in a row (killed, or out of memory) at {', '.join(u.key for u in units)}"
            f"{kept}, with fewer jobs if memory is short"
        )

    @staticmethod
    def _path(folder: Path, unit: Unit) -> Path:
        return folder / f"{unit.key}.zip"

    def _keep(self, unit: Unit, result: UnitResult) -> UnitResult:
        self.lasting.update(result.lasting)
        if self.folder is not None:
            write_result(self._path(self.folder, unit), result, self.identity)
        return result

    def _stored(self, unit: Unit) -> UnitResult | None:
        return None if self.folder is None else read_result(self._path(self.folder, unit), self.identity)


def _checked_keys(units: Iterable[Unit]) -> Iterator[Unit]:
    seen: set[str] = set()
    for unit in units:
        if unit.key in seen or not unit.key or set(unit.key) - set(_KEY_CHARACTERS) or unit.key.startswith("."):
            raise ValueError(f"the key '{unit.key}' of a unit is repeated, or is no file name")
        seen.add(unit.key)
        yield unit


_KEY_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."


# --- in the worker ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OnDisk:
    """What all units share, as a file that the worker processes of one machine map into their memory."""

    path: str


#: What this process keeps for the run that it works for, by the run's token; it works for one at a time, or, as a
#: worker of a cluster, for few.
_memories: dict[str, Memory] = {}
_loaded: dict[str, Any] = {}
_MOST_RUNS = 2


def _release(token: str) -> None:
    _memories.pop(token, None)


def _do(
    shared: Any,
    token: str,
    memory_bytes: int,
    lasting: dict[str, NDArray[Any]],
    work: Callable[..., UnitResult],
    arguments: tuple[Any, ...],
) -> UnitResult:
    """Do one unit, wherever this is."""
    if isinstance(shared, _OnDisk):
        if shared.path not in _loaded:
            _loaded[shared.path] = joblib.load(shared.path, mmap_mode="r")
        shared = _loaded[shared.path]
    if token not in _memories:
        while len(_memories) >= _MOST_RUNS:
            _memories.pop(next(iter(_memories)), None)
        _memories[token] = Memory(memory_bytes)
    memory = _memories[token]
    memory.lasting.update(lasting)
    with remembering(memory):
        result = work(shared, *arguments)
    found = {key: value for key, value in list(memory.lasting.items()) if key not in lasting}
    return UnitResult(result.tables, result.arrays, found)


def _do_on_one_thread(*arguments: Any) -> UnitResult:
    """Do one unit in a process that does nothing else."""
    _set_threads(1, 1, 1)
    # Not undone afterwards: another thread of this worker may be in the midst of a unit.
    threadpool_limits(1)
    return _do(*arguments)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let the libraries that share work among threads use one, for a while."""
    torch = sys.modules.get("torch")
    before = (
        cv2.getNumThreads(),
        sitk.ProcessObject.GetGlobalDefaultNumberOfThreads(),
        torch.get_num_threads() if torch is not None else 1,
    )
    with threadpool_limits(1):
        _set_threads(1, 1, 1)
        try:
            yield
        finally:
            _set_threads(*before)


def _set_threads(of_cv: int, of_itk: int, of_torch: int) -> None:
    cv2.setNumThreads(of_cv)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(of_itk)
    torch = sys.modules.get("torch")  # imported in musclekit.neural alone; as long as it is not, it has no threads
    if torch is not None:
        torch.set_num_threads(of_torch)


# --- places ----------------------------------------------------------------------------------------------------------


class _Here:
    """The process itself; a unit is done when it is submitted."""

    losses: tuple[type[BaseException], ...] = ()

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def room(self) -> int:
        return 1

    def submit(self, *arguments: Any) -> Future[UnitResult]:
        future: Future[UnitResult] = Future()
        with _one_thread():
            future.set_result(_do(self._shared, *arguments))
        return future

    def look(self) -> None:
        """Do nothing: the process is there."""

    def restart(self) -> None:
        """Do nothing: nothing can be lost here."""

    def close(self) -> None:
        """Do nothing: nothing is open."""


class _Processes:
    """Processes on this machine."""

    losses: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, jobs: int, shared: Any) -> None:
        self._jobs = jobs
        self._folder = tempfile.mkdtemp(prefix="musclekit-")
        try:
            path = str(Path(self._folder) / "shared")
            joblib.dump(shared, path)
            self._shared = _OnDisk(path)
            self._pool = self._start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _start(self) -> Executor:
        pool: Executor = ProcessPoolExecutor(
            self._jobs, timeout=IDLE_S, initializer=_start_worker, initargs=(os.getpid(), self._folder), env=_ONE_THREAD
        )
        return pool

    def room(self) -> int:
        # One more than there are processes: none waits while a result is being written.
        return self._jobs + 1

    def submit(self, *arguments: Any) -> Future[UnitResult]:
        return self._pool.submit(_do_on_one_thread, self._shared, *arguments)

    def look(self) -> None:
        """Do nothing: a process that dies is told of at once."""

    def restart(self) -> None:
        self._stop()
        self._pool = self._start()

    def _stop(self) -> None:
        # loky's own argument: a unit that is being worked on is of no use any more.
        self._pool.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]

    def close(self) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _start_worker(parent: int, folder: str) -> None:
    """Leave Ctrl-C to the main process, which ends its workers; when it has been killed, tidy up and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Cluster:
    """The workers of a Dask scheduler."""

    def __init__(self, address: str, shared: Any) -> None:
        try:
            import distributed
            from distributed.comm.addressing import get_address_host_port
        except ImportError:
            raise InputError('a scheduler needs Dask: pip install "musclekit[cluster]"') from None
        self.losses: tuple[type[BaseException], ...] = (
            distributed.scheduler.KilledWorker,
            distributed.client.FutureCancelledError,
            # So ends what waits for shared data that no worker holds any more.
            CancelledError,
        )
        self._address = address
        self._given = shared
        # Dask tells of lost connections at length; one line of ours says it.
        self._logger = logging.getLogger("distributed")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)
        try:
            # A client that fails in its constructor takes 20 s to be collected, and prints a traceback.
            get_address_host_port(address, strict=True)
            self._client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError, ImportError) as problem:
            self._logger.setLevel(self._level)
            reason = " ".join(str(problem).split()) or type(problem).__name__
            raise InputError(
                f"no Dask scheduler answers at {address} ({reason}); start one with 'dask scheduler' and give the "
                "address that it prints, as tcp://host:port"
            ) from None
        try:
            self._client.wait_for_workers(1, timeout=FIRST_WORKER_S)
            self._scatter()
        except TimeoutError:
            self.close()
            raise InputError(
                f"the Dask scheduler at {address} has no workers; start some with 'dask worker {address}'"
            ) from None

    def _scatter(self) -> None:
        self._shared = self._client.scatter(self._given, broadcast=True, hash=False)
        self._executor: Executor = self._client.get_executor(pure=False)

    def room(self) -> int:
        with self._losing():
            return 1 + max(1, sum(int(n) for n in self._client.nthreads().values()))

    def submit(self, *arguments: Any) -> Future[UnitResult]:
        return self._executor.submit(_do_on_one_thread, self._shared, *arguments)

    def look(self) -> None:
        """Wait for a worker, if there is none."""
        with self._losing():
            self._client.wait_for_workers(1, timeout=FIRST_WORKER_S)

    def restart(self) -> None:
        """Send what is shared again: the only workers that held it may be gone."""
        with self._losing():
            self._client.wait_for_workers(1, timeout=FIRST_WORKER_S)
            self._scatter()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """Say in one line that the scheduler or all workers are lost."""
        try:
            yield
        except TimeoutError:
            lost = "has lost all its workers"
        except OSError:
            lost = "does not answer any more"
        else:
            return
        raise WorkerError(f"the Dask cluster at {self._address} {lost}; what is done is kept, run again to go on")

    def close(self) -> None:
        with suppress(OSError, TimeoutError):
            self._client.close()
        self._logger.setLevel(self._level)


# --- files -----------------------------------------------------------------------------------------------------------


def write_result(path: Path, result: UnitResult, identity: str = "") -> None:
    """Write a result: a zip file of CSV tables and NPY arrays, whole or not at all, the same bytes for the same result.

    Parameters
    ----------
    path : Path
        The file.
    result : UnitResult
        What to write.
    identity : str
        What it depends on; `read_result` must be given the same.

    Raises
    ------
    OutputError
        If it cannot be written.
    TypeError
        If a column or an array holds objects.
    """
    columns = {name: {str(c): _kind(table[c]) for c in table.columns} for name, table in result.tables.items()}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)

        add("result.json", json.dumps({"identity": identity, "columns": columns}).encode())
        for name, table in result.tables.items():
            add(f"tables/{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())
        for folder, arrays in (("arrays", result.arrays), ("lasting", result.lasting)):
            for name, array in arrays.items():
                if array.dtype.hasobject:
                    raise TypeError(f"array '{name}' of a unit holds objects")
                content = io.BytesIO()
                np.save(content, array, allow_pickle=False)
                add(f"{folder}/{name}.npy", content.getvalue())


def read_result(path: Path, identity: str = "") -> UnitResult | None:
    """Read what `write_result` wrote.

    Returns
    -------
    UnitResult or None
        None if there is no such file, it is damaged, or it was written with another identity: the unit has to be
        done.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("result.json"))
            if about["identity"] != identity:
                return None
            tables = {
                name: _read_table(archive.read(f"tables/{name}.csv"), kinds) for name, kinds in about["columns"].items()
            }
            arrays: dict[str, dict[str, NDArray[Any]]] = {"arrays": {}, "lasting": {}}
            for entry in archive.namelist():
                folder, _, name = entry.partition("/")
                if folder in arrays:
                    content = io.BytesIO(archive.read(entry))
                    arrays[folder][name.removesuffix(".npy")] = np.load(content, allow_pickle=False)
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None
    return UnitResult(tables, arrays["arrays"], arrays["lasting"])


def _kind(column: pd.Series[Any]) -> str:
    """How the values of a column are read back."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return "bool"
    if pd.api.types.is_integer_dtype(column.dtype):
        return "Int64" if isinstance(column.dtype, pd.Int64Dtype) else "int64"
    if pd.api.types.is_float_dtype(column.dtype):
        return "float64"
    if all(isinstance(value, str) for value in column):
        return "text"
    raise TypeError(f"column '{column.name}' of a unit's table holds neither numbers nor text alone")


def _read_table(content: bytes, kinds: Mapping[str, str]) -> pd.DataFrame:
    # Everything is text at first: a case may be called "NA" or "007".
    frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)[list(kinds)]
    for name, kind in kinds.items():
        column = frame[name]
        if kind == "bool":
            frame[name] = column == "True"
        elif kind != "text":
            # Python's own conversion gives back the same bits.
            values = pd.Series([np.nan if text == "" else text for text in column], index=frame.index, dtype=object)
            frame[name] = (
                pd.array([pd.NA if text == "" else int(text) for text in column], dtype="Int64")
                if kind == "Int64"
                else values.astype(np.dtype(kind))
            )
    return frame
