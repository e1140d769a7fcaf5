from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer

from musclekit.cli import guard
from musclekit.errors import VoxelError


def test_a_musclekit_error_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    @guard.guarded
    def command() -> None:
        raise VoxelError("the image is constant")

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == "error: the image is constant\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.Debug, "on", True)

    @guard.guarded
    def command() -> None:
        raise VoxelError("the image is constant")

    with pytest.raises(typer.Exit):
        command()
    assert "Traceback" in capsys.readouterr().err


def test_too_little_memory_is_one_line_that_says_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    @guard.guarded
    def command() -> None:
        raise MemoryError("Unable to allocate 771. MiB")

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == (
        "error: there is too little memory: Unable to allocate 771. MiB; work on fewer scans at once (--jobs), on "
        "smaller ones or at a larger spacing\n"
    )


def test_an_interruption_is_exit_130(capsys: pytest.CaptureFixture[str]) -> None:
    @guard.guarded
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_fault_of_ours_is_one_line_and_a_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    @guard.guarded
    def command() -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 70
    message = capsys.readouterr().err
    assert message.startswith("fault: ZeroDivisionError: division by zero; this is a mistake in the program")
    assert len(message.splitlines()) == 1


def test_an_exit_code_passes_through() -> None:
    @guard.guarded
    def command() -> None:
        raise typer.Exit(1)

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 1


def test_a_reader_that_has_had_enough_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does, once it has its lines
    words = [sys.executable, "-m", "musclekit.cli", "methods", "--json"]
    try:
        result = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    finally:
        os.close(writer)
    assert result.stderr == ""
    assert result.returncode == 0
