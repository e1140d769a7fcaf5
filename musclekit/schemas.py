"""The JSON files of ``data_schemas/``, and the check of data against them."""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from musclekit.errors import SchemaError

__all__ = ["check_schema", "read_json"]

#: Characters of a message that are shown.
MESSAGE_LENGTH = 240


def _folder() -> Traversable:
    """``data_schemas`` stands inside the package in a wheel and beside it in a checkout (editable install)."""
    installed = files("musclekit") / "data_schemas"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "data_schemas"


def read_json(name: str) -> dict[str, Any]:
    """Return one file of ``data_schemas`` as plain data.

    Parameters
    ----------
    name : str
        File name, ``"labels.json"``.
    """
    return dict(json.loads((_folder() / name).read_text(encoding="utf-8")))


def check_schema(data: object, name: str, what: str) -> None:
    """Check plain data against a schema.

    Parameters
    ----------
    data : object
        What ``json.loads`` would return.
    name : str
        ``"manifest"``, ``"scores"``, ...: the schema is ``<name>.schema.json``.
    what : str
        How an error message names the data, as ``"manifest cases.csv"``.

    Raises
    ------
    SchemaError
        At the first departure; the message says where it is and what was expected.
    """
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(read_json(f"{name}.schema.json"))
    problems = sorted(validator.iter_errors(data), key=lambda problem: list(map(str, problem.absolute_path)))
    if problems:
        where = "".join(f"[{part}]" for part in problems[0].absolute_path)
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        # The message quotes the data, which may be a whole file.
        raise SchemaError(f"{what}{': at ' + where if where else ''}: {_shortened(problems[0].message)}{more}")


def _shortened(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH // 2]} ... {text[-MESSAGE_LENGTH // 2 :]}"
