"""The file of a plan, of whatever is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musclekit.io import read_toml
from musclekit.schemas import check_schema
from musclekit.weights import shipped

__all__ = ["read_plan_data"]


def read_plan_data(path: Path, schema: str) -> dict[str, Any]:
    """Read a plan as plain data.

    Parameters
    ----------
    path : Path
        TOML. As everywhere, paths in the file are relative to it; here they no longer are.
    schema : str
        What it follows: ``"train"``, ``"train_segmenter"``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not TOML.
    SchemaError
        If it breaks the schema.
    """
    data = read_toml(path)
    check_schema(data, schema, f"plan {path.name}")
    files = {name: data[name] for name in ("cases", "start") if name in data}
    # Weights that ship go by a name.
    return data | {name: str(path.parent / file) for name, file in files.items() if file not in shipped()}
