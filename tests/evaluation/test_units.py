from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import musclekit.evaluation.units as units_module
from musclekit.errors import InputError, OutputError, SegmentationError, WorkerError
from musclekit.evaluation.units import Finished, Unit, UnitResult, Workers, read_result, write_result
from tests.evaluation.conftest import Cluster
from tests.evaluation.slow_units import SHARED, dies, fails, threads, units, work

ROOT = Path(__file__).parents[2]


def done_by(folder: Path | None, notes: Path | None = None, jobs: int = 1, identity: str = "a") -> list[Finished]:
    with Workers(SHARED, jobs=jobs, folder=folder, identity=identity) as workers:
        return list(workers.run(work, units(notes)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def began(notes: Path) -> list[int]:
    return sorted(int(path.name.split("-")[0].removeprefix("began")) for path in notes.glob("began*"))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def test_a_result_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    result = work(SHARED, 4)
    write_result(tmp_path / "a.zip", result, "one")
    again = read_result(tmp_path / "a.zip", "one")
    assert again is not None
    pd.testing.assert_frame_equal(again.tables["values"], result.tables["values"], check_exact=True)
    assert again.tables["values"]["name"].tolist() == ["NA", "007", ""]
    np.testing.assert_array_equal(again.arrays["labels"], result.arrays["labels"])
    assert again.arrays["labels"].dtype == np.uint8


def test_the_same_result_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_result(tmp_path / name, work(SHARED, 4), "one")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("of", [0, 10, 200, 500, -30, -1])
def test_a_damaged_file_is_no_result(tmp_path: Path, of: int) -> None:
    path = tmp_path / "a.zip"
    write_result(path, work(SHARED, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:of])
    assert read_result(path) is None
    path.write_bytes(b"")
    assert read_result(path) is None


def test_a_changed_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write_result(path, work(SHARED, 4))
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("tables/values.csv")
        at = entry.header_offset + 30 + len(entry.filename) + 3
    whole[at] ^= 255
    path.write_bytes(bytes(whole))
    assert read_result(path) is None


def test_arrays_of_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="array 'a' of a unit holds objects"):
        write_result(tmp_path / "a.zip", UnitResult(arrays={"a": np.array([{}])}))
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="column 'c'"):
        write_result(tmp_path / "a.zip", UnitResult({"t": pd.DataFrame({"c": [1, "x"]})}))
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("result.json", '{"identity": "", "columns": {}}')
        archive.write(tmp_path / "o.npy", "arrays/o.npy")
    assert read_result(tmp_path / "a.zip") is None


def test_each_unit_is_done_once_and_then_read(tmp_path: Path, notes: Path) -> None:
    first = done_by(tmp_path / "r", notes)
    assert [done.stored for done in first] == [False] * 8
    written = contents(tmp_path / "r")
    second = done_by(tmp_path / "r", notes)
    assert [done.stored for done in second] == [True] * 8
    assert began(notes) == list(range(8))
    assert contents(tmp_path / "r") == written
    for one, two in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one.result.tables["values"], two.result.tables["values"], check_exact=True)


def test_a_damaged_or_strange_unit_is_done_anew(tmp_path: Path, notes: Path) -> None:
    done_by(tmp_path / "r")
    written = contents(tmp_path / "r")
    (tmp_path / "r" / "unit-3.zip").write_bytes(b"PK nothing")
    (tmp_path / "r" / "unit-5.zip").unlink()
    done_by(tmp_path / "r", notes)
    assert began(notes) == [3, 5]
    assert contents(tmp_path / "r").keys() == written.keys()
    done_by(tmp_path / "r", notes, identity="b")
    assert began(notes) == sorted([3, 5, *range(8)])


def test_without_a_folder_nothing_is_kept(notes: Path) -> None:
    assert [done.stored for done in [*done_by(None, notes), *done_by(None, notes)]] == [False] * 16


def test_lasting_results_are_found_once(tmp_path: Path) -> None:
    with Workers(SHARED, folder=tmp_path, identity="a") as workers:
        found = [len(done.result.lasting) for done in workers.run(work, units())]
        assert found == [1, 1, 0, 0, 0, 0, 0, 0]
        assert sorted(float(value[0]) for value in workers.lasting.values()) == [0.0, 1 / 3]
        lasting = dict(workers.lasting)
    (tmp_path / "unit-4.zip").unlink()
    with Workers(SHARED, folder=tmp_path, identity="a") as workers:
        assert [len(done.result.lasting) for done in workers.run(work, units())] == [1, 1, 0, 0, 0, 0, 0, 0]
        assert workers.lasting.keys() == lasting.keys()


def test_units_are_taken_as_workers_become_free() -> None:
    taken = []

    def lazily() -> Iterator[Unit]:
        for unit in units():
            taken.append(unit.key)
            yield unit

    with Workers(SHARED) as workers:
        for done in workers.run(work, lazily()):
            assert taken[-1] == done.unit.key


@pytest.mark.parametrize("key", ["a/b", "", ".a", "ä", "a b"])
def test_a_key_is_a_file_name(key: str) -> None:
    with Workers(SHARED) as workers, pytest.raises(ValueError, match="is no file name"):
        list(workers.run(work, [Unit(key, (1,))]))


def test_a_key_stands_for_one_unit() -> None:
    with Workers(SHARED) as workers, pytest.raises(ValueError, match="the key 'a' of a unit is repeated"):
        list(workers.run(work, [Unit("a", (1,)), Unit("a", (2,))]))


def test_what_fails_is_raised_and_the_rest_is_kept(tmp_path: Path) -> None:
    with Workers(folder=tmp_path) as workers, pytest.raises(SegmentationError, match="unit 2 has nothing to stand on"):
        list(workers.run(fails, [Unit(f"u{n}", (n,)) for n in range(5)]))
    assert sorted(contents(tmp_path)) == ["u0.zip", "u1.zip"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    with pytest.raises(OutputError, match=r"unit-0\.zip: cannot be written"):
        done_by(tmp_path / "r")


def test_one_thread_here_and_as_many_as_before_afterwards() -> None:
    with Workers() as workers:
        before = threads(None).arrays["threads"]
        (done,) = workers.run(threads, [Unit("t")])
        assert set(done.result.arrays["threads"]) == {1}
        np.testing.assert_array_equal(threads(None).arrays["threads"], before)


def test_jobs_and_scheduler_are_checked() -> None:
    with pytest.raises(InputError, match="jobs must be at least 1, not 0"):
        Workers(jobs=0)
    with pytest.raises(InputError, match="either jobs"):
        Workers(jobs=2, scheduler="tcp://127.0.0.1:8786")


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "CONNECT_S", 1)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 .* 'dask scheduler'"):
        Workers(scheduler="tcp://127.0.0.1:9").__enter__()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("address", ["somewhere", "ftp://127.0.0.1:9", "tcp://127.0.0.1:x", "tcp://127.0.0.1"])
def test_an_address_that_is_none_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    # A client that fails in its constructor leaves a traceback behind when it is collected.
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: pytest.fail("no connection is tried"))
    with pytest.raises(InputError, match="give the address that it prints, as tcp://host:port") as caught:
        Workers(scheduler=address).__enter__()
    assert address in str(caught.value)


def test_without_dask_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'a scheduler needs Dask: pip install "musclekit\[cluster\]"'):
        Workers(scheduler="tcp://127.0.0.1:9").__enter__()


def test_dask_is_loaded_only_for_a_scheduler() -> None:
    code = "import sys, musclekit.evaluation.units; print('distributed' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]


def test_processes_give_the_same_files_on_one_thread_each(tmp_path: Path) -> None:
    done_by(tmp_path / "one")
    with Workers(SHARED, jobs=2, folder=tmp_path / "two", identity="a") as workers:
        found = {done.unit.key: done for done in workers.run(work, units())}
        (done,) = workers.run(threads, [Unit("threads")])
        assert set(done.result.arrays["threads"]) == {1}
    assert len(found) == 8
    for unit in units():
        one, two = (read_result(tmp_path / name / f"{unit.key}.zip", "a") for name in ("one", "two"))
        assert one is not None
        assert two is not None
        pd.testing.assert_frame_equal(one.tables["values"], two.tables["values"], check_exact=True)


def test_a_worker_that_is_killed_once_costs_no_unit(tmp_path: Path) -> None:
    with Workers(tmp_path, jobs=2) as workers:
        found = [done.unit.key for done in workers.run(dies, [Unit(f"u{n}", (n, 1)) for n in range(6)])]
    assert sorted(found) == [f"u{n}" for n in range(6)]
    assert len(list(tmp_path.glob("died*"))) == 1


@pytest.mark.slow
def test_workers_that_keep_dying_end_it_and_the_rest_is_kept(tmp_path: Path) -> None:
    every = [Unit(f"u{n}", (n, 99)) for n in (0, 1)]
    with (
        Workers(tmp_path, jobs=2, folder=tmp_path / "r") as workers,
        pytest.raises(WorkerError, match=r"workers died 3 times in a row .* u1; what is done is kept in .* run again"),
    ):
        list(workers.run(dies, every))
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["u0.zip"]


def _started(results: Path, notes: Path, jobs: int, pause: float, temporary: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.evaluation.slow_units", str(results), str(notes), str(jobs), str(pause)]
    environment = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _wait_for(results: Path, files: int, running: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 60
    while len(list(results.glob("unit-*.zip"))) < files:
        assert running.poll() is None, "it ended early"
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_loses_the_units_in_flight_alone(
    tmp_path: Path, notes: Path, jobs: int, how: signal.Signals
) -> None:
    results = tmp_path / "r"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    running = _started(results, notes, jobs, 0.4, temporary)
    _wait_for(results, 3, running)
    if how is signal.SIGINT:
        os.killpg(running.pid, how)  # as the terminal does it: to the workers too
    else:
        running.kill()
    running.wait(30)
    kept = {path.name for path in results.glob("unit-*.zip")}
    assert 3 <= len(kept) < 8
    assert not [path for path in results.iterdir() if not path.name.startswith(("unit-", "."))]
    assert all(read_result(results / name, "a") is not None for name in kept)
    _workers_are_gone(running.pid)
    assert not list(temporary.iterdir())
    again = tmp_path / "again"
    again.mkdir()
    finished = done_by(results, again)
    assert {f"{done.unit.key}.zip" for done in finished if done.stored} == kept
    assert len(began(again)) == 8 - len(kept)
    whole = {done.unit.key: done.result for done in done_by(None)}
    for done in finished:
        pd.testing.assert_frame_equal(
            done.result.tables["values"], whole[done.unit.key].tables["values"], check_exact=True
        )


def _workers_are_gone(session: int) -> None:
    """Wait until no process of a session is left; those whose parent was killed see it within a second or two."""
    limit = time.monotonic() + 15
    while True:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < limit, "a worker process outlives the main process"
        time.sleep(0.1)


def _wait_until_begun(notes: Path, count: int) -> None:
    limit = time.monotonic() + 60
    while len(began(notes)) < count:
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
def test_a_cluster_that_loses_all_workers_goes_on_with_new_ones(tmp_path: Path, notes: Path, cluster: Cluster) -> None:
    done_by(tmp_path / "here")
    with Workers(SHARED, scheduler=cluster.address, folder=tmp_path / "there", identity="a") as workers:
        for n, _ in enumerate(workers.run(work, units(notes, 0.3))):
            if n == 2:
                _wait_until_begun(notes, n + 2)
                for process in cluster.workers:
                    process.kill()
                cluster.add_worker()
    assert len(began(notes)) > 8, "units in flight were begun again"
    assert contents(tmp_path / "there").keys() == contents(tmp_path / "here").keys()
    for name in contents(tmp_path / "here"):
        one, two = (read_result(tmp_path / where / name, "a") for where in ("here", "there"))
        assert one is not None
        assert two is not None
        pd.testing.assert_frame_equal(one.tables["values"], two.tables["values"], check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(("gone", "words"), [("scheduler", "does not answer any more"), ("workers", "lost all its")])
def test_a_cluster_that_is_gone_is_one_line_and_the_rest_is_kept(
    tmp_path: Path, notes: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, gone: str, words: str
) -> None:
    monkeypatch.setattr(units_module, "FIRST_WORKER_S", 15)

    def lose(workers: Workers) -> None:
        for n, _ in enumerate(workers.run(work, units(notes, 0.3))):
            if n == 2:
                for process in [cluster.scheduler] if gone == "scheduler" else cluster.workers:
                    process.kill()

    with (
        Workers(SHARED, scheduler=cluster.address, folder=tmp_path / "r") as workers,
        pytest.raises(WorkerError, match=f"{words}.*; what is done is kept, run again to go on"),
    ):
        lose(workers)
    assert 3 <= len(contents(tmp_path / "r")) < 8
