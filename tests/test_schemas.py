from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from musclekit import schemas
from musclekit.errors import SchemaError
from musclekit.schemas import check_schema, read_json

SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parts": {"type": "array", "items": {"type": "integer"}}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of schemas with one in it."""
    (tmp_path / "thing.schema.json").write_text(json.dumps(SCHEMA))
    monkeypatch.setattr(schemas, "_folder", lambda: tmp_path)
    return tmp_path


def test_every_schema_that_ships_is_a_schema() -> None:
    names = [file.name for file in schemas._folder().iterdir() if file.name.endswith(".schema.json")]
    assert "scores.schema.json" in names
    for name in names:
        Draft202012Validator.check_schema(read_json(name))


def test_labels_are_read() -> None:
    assert set(read_json("labels.json")) == {"description", "sets", "maps"}


@pytest.mark.usefixtures("folder")
def test_good_data_pass() -> None:
    check_schema({"name": "a", "parts": [1, 2]}, "thing", "my thing")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "my thing: 'name' is a required property"),
        ({"name": "a", "parts": [1, "x"]}, "my thing: at [parts][1]: 'x' is not of type 'integer'"),
        ({"parts": ["x", "y"]}, "my thing: 'name' is a required property (2 more)"),
    ],
)
def test_the_first_departure_is_named(data: object, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check_schema(data, "thing", "my thing")
    assert str(caught.value) == message


@pytest.mark.usefixtures("folder")
def test_a_message_is_one_short_line() -> None:
    with pytest.raises(SchemaError) as caught:
        check_schema({"name": ["line\n" * 500]}, "thing", "my thing")
    text = str(caught.value)
    assert len(text) < 300
    assert "\n" not in text
    assert text.startswith("my thing: at [name]: ['line")
    assert text.endswith("is not of type 'string'")
