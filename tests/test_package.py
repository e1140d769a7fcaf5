"""The package around the code: what an import costs, what a wheel holds, what the layers allow."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import musclekit

ROOT = Path(__file__).parents[1]


def run_python(code: str, folder: Path = ROOT, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, "PATH": ""},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_musclekit_loads_nothing_heavy() -> None:
    loaded = json.loads(run_python("import json, sys, musclekit; print(json.dumps(sorted(sys.modules)))"))
    heavy = {"torch", "SimpleITK", "sklearn", "pandas", "scipy.stats", "skimage", "cv2", "matplotlib", "numpy"}
    assert not heavy & set(loaded)


def test_help_loads_nothing_heavy() -> None:
    code = """
import json, sys
sys.argv = ["musclekit", "--help"]
from musclekit.cli import main
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""
    loaded = json.loads(run_python(code).splitlines()[-1])
    assert not {"torch", "SimpleITK", "sklearn", "pandas", "scipy", "numpy", "matplotlib"} & set(loaded)


def test_every_public_name_is_there() -> None:
    for name in musclekit.__all__:
        assert getattr(musclekit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = musclekit.nonsense


def test_torch_is_imported_in_neural_alone() -> None:
    for path in (ROOT / "musclekit").rglob("*.py"):
        if "neural" not in path.parts:
            assert "import torch" not in path.read_text(encoding="utf-8"), path


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == musclekit.__version__


def test_every_dependency_is_pinned_inside_its_range() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split("==")[0].lower(): line.split("==")[1] for line in lines if "==" in line}
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        if requirement.name != "musclekit":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), text


@pytest.mark.slow
def test_a_wheel_holds_schemas_templates_and_types(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    assert (unpacked / "musclekit" / "py.typed").is_file()
    for inside in ("report/templates/report.html.jinja", "report/templates/report.css", "phantom/landmarks.csv"):
        assert (unpacked / "musclekit" / inside).is_file(), inside
    assert not (unpacked / "data_schemas").exists()
    assert not (unpacked / "tests").exists()
    schemas = {path.name for path in (ROOT / "data_schemas").iterdir()}
    assert {path.name for path in (unpacked / "musclekit" / "data_schemas").iterdir()} == schemas
    code = "import musclekit, musclekit.labels as m; print(musclekit.__file__); print(len(m.label_set('huashan-11')))"
    where, count = run_python(code, tmp_path, PYTHONPATH=str(unpacked)).splitlines()
    assert where.startswith(str(unpacked))
    assert count == "11"
