from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from musclekit.neural.checkpoint import read_tensors
from musclekit.neural.training.ranks import is_first_process, joined
from musclekit.neural.training.translation import train_translator
from tests.neural.training.examples import SOURCE, TARGET, tiny

ROOT = Path(__file__).parents[3]


def test_alone_there_is_one() -> None:
    assert is_first_process()
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.size, ranks.is_first) == (0, 1, True)
        network = torch.nn.Linear(1, 1)
        assert ranks.shared(network) is network
        assert ranks.gathered("it") == ["it"]
        assert ranks.mean(torch.ones(2)).tolist() == [1, 1]


def torchrun(folder: Path, *, batch: int, pool: int, until: int) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    work = ["-m", "tests.neural.training.one_of_several", folder, batch, pool, until]
    return subprocess.run(
        [*launch, *map(str, work)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_hold_the_same_weights_and_go_on_as_if_never_stopped(tmp_path: Path) -> None:
    for folder, steps in (("whole", (4,)), ("parts", (2, 4))):
        for until in steps:
            result = torchrun(tmp_path / folder, batch=2, pool=3, until=until)
            assert result.returncode == 0, result.stderr
        ranks = [read_tensors(tmp_path / folder / f"rank_{rank}.pt") for rank in (0, 1)]
        assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    for name in ("forward.pt", "backward.pt", "state.pt", "losses.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """A batch is as large whoever shares it: the losses are the same but for rounding."""
    assert torchrun(tmp_path / "two", batch=2, pool=0, until=3).returncode == 0
    trained = train_translator(tiny(batch=2, pool=0), SOURCE, TARGET, tmp_path / "one", until=3)
    two = pd.read_csv(tmp_path / "two" / "losses.csv")
    pd.testing.assert_frame_equal(two, pd.DataFrame(trained.rows), check_dtype=False, rtol=1e-4)
    assert trained.rows[2]["cycle"] < 0.98 * trained.rows[0]["cycle"]


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    result = torchrun(tmp_path, batch=3, pool=0, until=1)
    assert result.returncode != 0
    assert "a batch of 3 cannot be shared between 2 processes: make it a multiple of 2" in result.stderr
