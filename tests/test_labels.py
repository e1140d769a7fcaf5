from __future__ import annotations

import pickle
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from musclekit.errors import LabelError, UnknownNameError
from musclekit.labels import label_mapping, label_set, label_set_names
from musclekit.schemas import read_json

DATA = read_json("labels.json")
SETS = list(DATA["sets"])
MAPS = [(source, target) for source, targets in DATA["maps"].items() for target in targets]

HUASHAN = (
    "sartorius", "rectus femoris", "vastus lateralis", "vastus intermedius", "vastus medialis", "adductor magnus",
    "gracilis", "biceps femoris long head", "semitendinosus", "semimembranosus", "biceps femoris short head",
)  # fmt: skip

_HIP = {
    "pelvis", "femur", "sacrum", "gluteus maximus", "gluteus medius", "gluteus minimus", "iliacus",
    "obturator externus", "obturator internus", "piriformis", "psoas major",
}  # fmt: skip
_FULL = {"femur", "other compartment", "subcutaneous fat"}
_CONTEXT = _FULL | {"other muscle", "other bone"}
_QMRI_ADDUCTORS = {"adductor minimus", "adductor longus", "adductor brevis", "pectineus"}

#: What each map leaves out, on purpose. Maps that are not here leave out nothing.
DROPPED = {
    # Paper 000 has no adductors among its four groups.
    ("huashan-11", "thigh-4"): {"adductor magnus"},
    ("thigh-11", "thigh-4"): {"adductor magnus"},
    ("thigh-full", "thigh-4"): {"adductor magnus"} | _FULL,
    ("qmritools", "thigh-4"): {"adductor magnus", "iliacus", "ilium", "femur"} | _QMRI_ADDUCTORS,
    ("thigh-10", "thigh-4"): {"adductors", "tensor fasciae latae"},
    ("hip-thigh-22", "thigh-4"): _HIP | {"pectineus", "adductors", "tensor fasciae latae"},
    # The hip moves by muscles that are neither extensors, flexors nor adductors of the thigh's three groups.
    ("qmritools", "functional-3"): {"iliacus", "ilium", "femur"},
    ("thigh-10", "functional-3"): {"tensor fasciae latae"},
    ("hip-thigh-22", "functional-3"): _HIP | {"tensor fasciae latae"},
    # Bone and fat are not muscle; the rest of the compartment is a mixture.
    ("thigh-full", "functional-3"): _FULL,
    ("thigh-full", "muscle"): _FULL,
    ("thigh-full", "huashan-11"): _FULL,
    ("thigh-full", "thigh-11"): _FULL,
    ("thigh-full", "thigh-10"): _FULL,
    ("thigh-context", "thigh-4"): {"adductor magnus"} | _CONTEXT,
    ("thigh-context", "functional-3"): _CONTEXT,
    ("thigh-context", "muscle"): _CONTEXT - {"other muscle"},
    ("thigh-context", "huashan-11"): _CONTEXT,
    ("thigh-context", "thigh-11"): _CONTEXT,
    ("thigh-context", "thigh-10"): _CONTEXT,
    ("qmritools", "muscle"): {"ilium", "femur"},
    ("hip-thigh-22", "muscle"): {"pelvis", "femur", "sacrum"},
    ("tissue", "muscle"): {"cortical bone", "marrow", "subcutaneous fat", "intermuscular fat"},
    ("tissue", "compartment"): {"subcutaneous fat"},
    # The hip has no place among thigh muscles.
    ("hip-thigh-22", "thigh-10"): _HIP | {"pectineus"},
    ("qmritools", "thigh-10"): {"iliacus", "pectineus", "ilium", "femur"},
    ("qmritools", "huashan-11"): {"iliacus", "ilium", "femur"} | _QMRI_ADDUCTORS,
    ("qmritools", "thigh-11"): {"iliacus", "ilium", "femur"} | _QMRI_ADDUCTORS,
    ("qmritools", "thigh-full"): {"ilium"},
}


def test_every_set_is_there() -> None:
    assert set(SETS) == {
        "tissue", "compartment", "muscle", "thigh-4", "thigh-10", "hip-thigh-22", "functional-3", "huashan-11",
        "thigh-11", "thigh-full", "thigh-context", "qmritools",
    }  # fmt: skip
    assert set(label_set_names()) == {name + suffix for name in SETS for suffix in ("", "-sided")}


@pytest.mark.parametrize("name", label_set_names())
def test_ids_names_and_abbreviations_tell_labels_apart(name: str) -> None:
    labels = list(label_set(name))
    assert len({label.id for label in labels}) == len(labels)
    assert all(0 < label.id < 256 for label in labels)
    assert len({label.full_name for label in labels}) == len(labels)
    assert len({(label.abbreviation, label.side) for label in labels}) == len(labels)
    # A name that is another label's abbreviation would find both.
    assert not {label.name for label in labels} & {label.abbreviation for label in labels}


@pytest.mark.parametrize("name", SETS)
def test_colours_can_be_told_apart(name: str) -> None:
    labels = list(label_set(name))
    assert all(re.fullmatch("#[0-9a-f]{6}", label.color) for label in labels)
    for one, other in combinations(labels, 2):
        rgb = np.array([[int(label.color[i : i + 2], 16) for i in (1, 3, 5)] for label in (one, other)])
        assert np.linalg.norm(rgb[0] - rgb[1]) > 40, (one.name, other.name)


def test_one_structure_has_one_abbreviation_and_one_colour() -> None:
    seen: dict[str, tuple[str, str]] = {}
    for name in set(SETS) - {"qmritools"}:
        for label in label_set(name):
            assert seen.setdefault(label.name, (label.abbreviation, label.color)) == (label.abbreviation, label.color)


@pytest.mark.parametrize("name", SETS)
def test_the_sided_version_has_every_label_twice(name: str) -> None:
    unsided, sided = label_set(name), label_set(name + "-sided")
    assert len(sided) == 2 * len(unsided)
    assert sided == unsided.sided() == sided.sided()
    assert sided.unsided() == unsided == unsided.unsided()
    assert sided.is_sided
    assert not unsided.is_sided
    for label in unsided:
        left, right = (sided[id_] for id_ in unsided.sided_ids[label.id])
        assert (left.side, right.side) == ("left", "right")
        assert left.name == right.name == label.name
        assert sided.ids_of(label.name) == (left.id, right.id)
        assert sided.ids_of(label.abbreviation, "right") == (right.id,)


def test_four_groups_stand_in_the_order_of_the_paper() -> None:
    assert label_set("thigh-4").names == ("gracilis", "hamstrings", "quadriceps femoris", "sartorius")
    assert [label.id for label in label_set("thigh-4")] == [1, 2, 3, 4]


def test_huashan_ids_are_those_of_its_files() -> None:
    assert label_set("huashan-11").names == HUASHAN
    assert sorted(label_set("huashan-11").ids) == list(range(1, 12))
    assert label_set("thigh-11").names == HUASHAN


@pytest.mark.parametrize("name", [source for source, target in MAPS if target == "functional-3"])
def test_functional_groups_agree_with_the_map(name: str) -> None:
    mapping = label_mapping(label_set(name), label_set("functional-3"))
    for label in mapping.source:
        if label.id in mapping.ids:
            assert mapping.target[mapping.ids[label.id]].name == label.group, label.name
        else:
            assert label.group not in mapping.target.names, label.name


@pytest.mark.parametrize(("source", "target"), MAPS)
def test_maps_join_labels_that_exist(source: str, target: str) -> None:
    names = DATA["maps"][source][target]
    assert set(names) <= set(label_set(source).names)
    assert set(names.values()) <= set(label_set(target).names)


@pytest.mark.parametrize(("source", "target"), MAPS)
def test_what_a_map_drops_is_dropped_on_purpose(source: str, target: str) -> None:
    mapping = label_mapping(label_set(source), label_set(target))
    assert set(mapping.dropped) == DROPPED.get((source, target), set())


@pytest.mark.parametrize(("source", "target"), MAPS)
def test_maps_keep_sides_or_drop_them(source: str, target: str) -> None:
    sided = label_mapping(label_set(source).sided(), label_set(target).sided())
    for before, after in sided.ids.items():
        assert sided.source[before].side == sided.target[after].side
    dropped = label_mapping(label_set(source).sided(), label_set(target))
    plain = label_mapping(label_set(source), label_set(target))
    assert set(dropped.ids.values()) == set(plain.ids.values())
    assert len(dropped.ids) == 2 * len(plain.ids)


@pytest.mark.parametrize(("source", "target"), MAPS)
def test_two_steps_lead_where_one_does(source: str, target: str) -> None:
    for through in DATA["maps"].get(target, {}):
        if through not in DATA["maps"][source] or through == source:
            continue
        first = label_mapping(label_set(source), label_set(target))
        second = label_mapping(label_set(target), label_set(through))
        direct = label_mapping(label_set(source), label_set(through))
        for id_, between in first.ids.items():
            if between in second.ids:
                assert second.ids[between] == direct.ids[id_], first.source[id_].name


def test_a_table_maps_voxels() -> None:
    mapping = label_mapping(label_set("tissue"), label_set("compartment"))
    np.testing.assert_array_equal(mapping.table()[[0, 1, 2, 3, 4, 5]], [0, 1, 2, 2, 0, 1])


def test_a_set_maps_to_itself() -> None:
    mapping = label_mapping(label_set("qmritools-sided"), label_set("qmritools"))
    assert mapping.ids[32] == 31
    assert mapping.dropped == ()


def test_unknown_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="unknown label set 'thigh4'; did you mean 'thigh-4'"):
        label_set("thigh4")
    with pytest.raises(LabelError, match="the set 'muscle' has no label 'fat'; it has: muscle"):
        label_set("muscle").ids_of("fat")
    with pytest.raises(LabelError, match="the set 'muscle' has no label 7"):
        label_set("muscle")[7]


def test_maps_that_do_not_exist_are_refused() -> None:
    with pytest.raises(LabelError, match="no map from 'tissue' to 'thigh-4'; from it one can reach: compartment, mus"):
        label_mapping(label_set("tissue"), label_set("thigh-4"))
    with pytest.raises(LabelError, match="no map from 'muscle' to 'thigh-4'; from it one can reach: none"):
        label_mapping(label_set("muscle"), label_set("thigh-4"))
    with pytest.raises(LabelError, match="'thigh-11' does not tell left from right, 'thigh-4-sided' does"):
        label_mapping(label_set("thigh-11"), label_set("thigh-4-sided"))


def test_sets_can_be_keys() -> None:
    assert len({label_set("muscle"), label_set("muscle"), label_set("muscle-sided")}) == 2


@pytest.mark.slow
def test_the_ids_of_real_files_belong_to_their_sets(shared_data: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    files = {"qmritools-sided": [shared_data / "qmritools" / "thigh_dseg.nii.gz"]}
    files["huashan-11"] = [*shared_data.glob("huashan/*_dseg.nii.gz"), *shared_data.glob("huashan_labels/*.nii.gz")]
    assert len(files["huashan-11"]) > 30
    for name, paths in files.items():
        for path in paths:
            ids = np.unique(np.asanyarray(nibabel.load(path).dataobj)).astype(int)
            assert set(ids.tolist()) - {0} <= label_set(name).ids, path.name


@pytest.mark.slow
def test_odd_qmritools_ids_lie_on_the_left(shared_data: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    file = nibabel.load(shared_data / "qmritools" / "thigh_dseg.nii.gz")
    ids = np.asanyarray(file.dataobj).astype(int)
    middle = file.affine @ [*np.argwhere(np.isin(ids, (103, 104))).mean(axis=0), 1]
    for label in label_set("qmritools-sided"):
        if not (ids == label.id).any():
            continue
        x = (file.affine @ [*np.argwhere(ids == label.id).mean(axis=0), 1])[0]
        assert label.side == ("right" if x > middle[0] else "left"), label.full_name


def test_a_set_that_everyone_shares_cannot_be_changed_and_can_be_pickled() -> None:
    shared = label_set("thigh-4")
    with pytest.raises(TypeError):
        shared.sided_ids[1] = (99, 98)  # type: ignore[index]
    copied = pickle.loads(pickle.dumps(shared))
    assert copied == shared
    assert copied.sided() == shared.sided()
    assert hash(copied) == hash(shared)
