from __future__ import annotations

import time

import pytest

from musclekit.cli.progress import progress_bar, seconds_left


def test_the_time_left_is_right_for_steady_work() -> None:
    samples = [(float(t), 2.0 * t) for t in range(11)]
    assert seconds_left(samples, 60.0) == pytest.approx(20.0)


def test_what_was_found_done_does_not_make_the_rest_look_fast() -> None:
    # A resumed run: 100 units are there at once, then one takes a second.
    samples = [(0.0, 0.0)] + [(0.01, float(n)) for n in range(1, 101)] + [(float(t), 100.0 + t) for t in range(1, 11)]
    assert seconds_left(samples, 150.0) == pytest.approx(40.0)


def test_a_slow_start_is_forgotten() -> None:
    # The first unit works out what the others use again.
    samples = [(0.0, 0.0), (30.0, 1.0)] + [(30.0 + t, 1.0 + t) for t in range(1, 41)]
    assert seconds_left(samples, 51.0) == pytest.approx(10.0)


def test_weights_count_not_units() -> None:
    # Units of weight 1 and 3 that take 1 s and 3 s.
    samples = [(0.0, 0.0), (1.0, 1.0), (4.0, 4.0), (5.0, 5.0), (8.0, 8.0)]
    assert seconds_left(samples, 20.0) == pytest.approx(12.0)


def test_nothing_is_promised_before_anything_is_done() -> None:
    assert seconds_left([], 10.0) is None
    assert seconds_left([(0.0, 0.0)], 10.0) is None
    assert seconds_left([(0.0, 0.0), (3.0, 0.0)], 10.0) is None
    assert seconds_left([(0.0, 0.0), (3.0, 10.0)], 10.0) == 0.0


def test_a_first_step_alone_gives_a_rate() -> None:
    assert seconds_left([(0.0, 0.0), (4.0, 2.0)], 10.0) == pytest.approx(16.0)


def test_the_bar_shows_percent_time_left_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("searching", quiet=False) as move:
        assert move is not None
        time.sleep(0.01)
        move(2.5, 10.0, "best so far: 0.871")
    shown = capsys.readouterr().err
    assert "searching" in shown
    assert "25%" in shown
    assert "0:00:00 left" in shown
    assert "best so far: 0.871" in shown


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("searching", quiet=True) as move:
        assert move is None
    assert capsys.readouterr() == ("", "")
