from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Cluster:
    """A Dask scheduler and workers, each a process of its own, on the loopback interface."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        limit = time.monotonic() + 60
        while not self._file.exists():
            assert self.scheduler.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        self.address = str(json.loads(self._file.read_text())["address"])
        self.workers: list[subprocess.Popen[bytes]] = []
        for _ in range(2):
            self.add_worker()

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(self._file)]
        quiet = subprocess.DEVNULL
        # The tests' own modules can be imported from the root.
        return subprocess.Popen([*command, "--no-dashboard", *arguments], cwd=ROOT, stdout=quiet, stderr=quiet)

    def add_worker(self) -> None:
        self.workers.append(self._start("worker", "--nthreads", "1", "--no-nanny"))

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait(10)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two workers."""
    started = Cluster(tmp_path)
    yield started
    started.stop()
