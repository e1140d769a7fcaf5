from __future__ import annotations

import inspect
import pickle

import pytest

from musclekit import errors
from musclekit.errors import InputError, MusclekitError, UnknownNameError, unknown_name

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, MusclekitError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_public_documented_and_drawn(kind: type[MusclekitError]) -> None:
    assert kind.__name__ in errors.__all__
    assert kind.__doc__
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", CLASSES)
def test_a_message_is_printed_as_it_is_and_survives_a_process(kind: type[MusclekitError]) -> None:
    problem = kind("it's 'here': try again")
    assert str(problem) == "it's 'here': try again"
    again = pickle.loads(pickle.dumps(problem))
    assert type(again) is kind
    assert str(again) == str(problem)


def test_what_the_user_gave_is_one_branch() -> None:
    apart = {kind.__name__ for kind in CLASSES if not issubclass(kind, InputError)}
    assert apart == {
        "MusclekitError",
        "SegmentationError",
        "TrainingError",
        "UnsafeError",
        "WorkerError",
        "OutputError",
    }


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("MissingFileError", FileNotFoundError),
        ("ParameterError", ValueError),
        ("UnknownNameError", KeyError),
        ("OutputError", OSError),
    ],
)
def test_errors_are_also_what_python_calls_them(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)


def test_a_near_miss_is_suggested() -> None:
    problem = unknown_name("method", "spcg", ["gmm", "spgc"])
    assert isinstance(problem, UnknownNameError)
    assert str(problem) == "unknown method 'spcg'; did you mean 'spgc'? Known: gmm, spgc."


def test_without_a_near_miss_the_names_are_listed() -> None:
    assert str(unknown_name("method", "zzz", iter(["spgc", "gmm"]))) == "unknown method 'zzz'. Known: gmm, spgc."
