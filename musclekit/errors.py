"""Every error musclekit raises on purpose.

::

    MusclekitError
    ├── InputError            what was given cannot be used; the command line exits with 2
    │   ├── MissingFileError  a file or folder does not exist (also a FileNotFoundError)
    │   ├── FormatError       a file is not what its name says, is damaged, or is of no known format
    │   ├── GeometryError     grids differ, an affine is singular, an image is not 3-D
    │   ├── VoxelError        voxels are not finite, all alike, or all air
    │   ├── ModalityError     a method is given a contrast that it does not accept
    │   ├── LabelError        ids outside their label set, an unknown label, a map that does not exist
    │   ├── SchemaError       a manifest, plan or table breaks its schema
    │   ├── CheckpointError   a network's file is of another kind, direction or version, or was changed
    │   ├── LeakError         a subject would be learnt from and tested on
    │   ├── NotFittedError    a method that learns from annotated cases is used before it has seen any
    │   ├── ParameterError    a parameter that does not exist or lies outside its range (also a ValueError)
    │   └── UnknownNameError  a name no registry knows (also a KeyError)
    ├── SegmentationError     a method ran and found nothing that it can stand behind
    ├── TrainingError         a training ran off: a loss is no finite number; the last good epoch is kept
    ├── UnsafeError           a translation changed what it has to keep, and a strict run was asked for
    ├── WorkerError           worker processes or a cluster were lost; what was finished is kept, run again
    └── OutputError           a result could not be written (also an OSError)
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "FormatError",
    "GeometryError",
    "InputError",
    "LabelError",
    "LeakError",
    "MissingFileError",
    "ModalityError",
    "MusclekitError",
    "NotFittedError",
    "OutputError",
    "ParameterError",
    "SchemaError",
    "SegmentationError",
    "TrainingError",
    "UnknownNameError",
    "UnsafeError",
    "VoxelError",
    "WorkerError",
    "unknown_name",
]


class MusclekitError(Exception):
    """Root of the tree: catching it catches everything musclekit raises on purpose."""


class InputError(MusclekitError):
    """What was given cannot be used."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class FormatError(InputError):
    """A file is not what its name says, is damaged, or has a format nobody here reads."""


class GeometryError(InputError):
    """Grids do not agree, an affine cannot be inverted, or an array is not 3-D."""


class VoxelError(InputError):
    """Voxels are not finite, are all alike, or hold nothing but air."""


class ModalityError(InputError):
    """A method was given a contrast that it does not accept."""


class LabelError(InputError):
    """A label id or name does not belong to its label set, or no map joins two sets."""


class SchemaError(InputError):
    """A manifest, plan or table does not follow its schema."""


class CheckpointError(InputError):
    """A network's file is not of the kind, direction or version that is needed, or was changed after it was written."""


class LeakError(InputError):
    """A subject would be learnt from and tested on."""


class NotFittedError(InputError):
    """A method that learns from annotated cases was used before it saw any: call ``fit`` first."""


class ParameterError(InputError, ValueError):
    """A parameter does not exist or lies outside its range."""


class UnknownNameError(InputError, KeyError):
    """A name that no registry knows; the message lists the names that exist."""

    # KeyError would print the repr of the message, quotes and escapes included.
    __str__ = Exception.__str__


class SegmentationError(MusclekitError):
    """A method ran and found nothing that it can stand behind."""


class TrainingError(MusclekitError):
    """A training ran off and was stopped; what it wrote after its last good epoch is kept."""


class UnsafeError(MusclekitError):
    """A translation changed what it has to keep; raised where a strict run was asked for."""


class WorkerError(MusclekitError):
    """Worker processes or a cluster were lost; what was finished is kept, and another call goes on from there."""


class OutputError(MusclekitError, OSError):
    """A result could not be written."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that does not exist, with the ones that do.

    Parameters
    ----------
    kind : str
        What was looked for, in the singular: ``"method"``, ``"label set"``.
    name : str
        The name that was given.
    known : iterable of str
        The names that exist.

    Returns
    -------
    UnknownNameError
        Ready to be raised; a near miss is suggested first.
    """
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return UnknownNameError(f"unknown {kind} '{name}'{hint} Known: {', '.join(names)}.")
