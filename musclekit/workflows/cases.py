"""The cases of a manifest, opened one at a time, and what their label maps mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from musclekit.errors import InputError, MusclekitError
from musclekit.image import Case, LabelMap
from musclekit.io import ManifestRow, group_rows, load_case, read_labels, read_manifest
from musclekit.io.source import naming
from musclekit.labels import LabelSet, Side, label_set
from musclekit.workflows.measure import label_set_of

__all__ = ["ManifestCases", "open_cases"]


@dataclass(frozen=True)
class ManifestCases:
    """Cases of a manifest; iterating opens them one after the other, and passes over those that cannot be opened.

    Parameters
    ----------
    path : Path
        The manifest.
    rows : tuple of tuple of ManifestRow
        The rows of each case.
    label_sets : mapping of str to LabelSet
        Case id to what the ids of its label map mean; a case without a label map is not in it.

    Attributes
    ----------
    failed : dict of str to str
        Case id to why it could not be opened; filled while the cases are iterated over.
    """

    path: Path
    rows: tuple[tuple[ManifestRow, ...], ...]
    label_sets: Mapping[str, LabelSet]
    failed: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Case]:
        for rows in self.rows:
            try:
                case = self.open(rows[0].case_id)
            except MusclekitError as problem:
                self.failed[rows[0].case_id] = str(problem)
                continue
            yield case

    @property
    def subjects(self) -> dict[str, str]:
        """Case id to subject, in the order of the manifest."""
        return {rows[0].case_id: rows[0].subject for rows in self.rows}

    def annotated(self, case_id: str) -> bool:
        """Whether a case has a label map."""
        return case_id in self.label_sets

    def open(self, case_id: str) -> Case:
        """Open one case.

        Raises
        ------
        InputError
            If it is not in the manifest or cannot be opened; the message names case and file.
        """
        for rows in self.rows:
            if rows[0].case_id == case_id:
                return load_case(rows, self.label_sets.get(case_id))
        raise InputError(f"{self.path}: there is no case '{case_id}'")

    def open_labels(self, case_id: str) -> LabelMap:
        """Open the label map of one case, and no image of it.

        Raises
        ------
        InputError
            If the case is not in the manifest, or its label map is not there or cannot be opened.
        """
        for rows in self.rows:
            if rows[0].case_id == case_id:
                path, meaning = rows[0].labels, self.label_sets.get(case_id)
                if path is None or meaning is None:
                    raise InputError(f"{self.path}: case '{case_id}' has no label map")
                with naming(f"case '{case_id}'"):
                    return read_labels(path, meaning)
        raise InputError(f"{self.path}: there is no case '{case_id}'")

    def side_of(self, case_id: str) -> Side | None:
        """Return which leg a case shows, where it shows one and the manifest says so."""
        return next(rows[0].side for rows in self.rows if rows[0].case_id == case_id)

    def all(self) -> list[Case]:
        """Open every case.

        Raises
        ------
        InputError
            At the first that cannot be opened, or that has no label map.
        """
        cases = []
        for rows in self.rows:
            if rows[0].labels is None:
                raise InputError(f"{self.path}: case '{rows[0].case_id}' has no label map; annotated cases are needed")
            cases.append(self.open(rows[0].case_id))
        return cases


def open_cases(manifest: Path, label_set_name: str | None = None) -> ManifestCases:
    """Read a manifest, and find out what its label maps mean; no scan is opened yet.

    Parameters
    ----------
    manifest : Path
        CSV, as `musclekit.io.read_manifest` reads it.
    label_set_name : str, optional
        What the ids of the label maps mean. Left out, the column ``label_set`` of the manifest says so, or else the
        label table beside each label map (``_dseg.tsv``).

    Raises
    ------
    InputError
        If the manifest cannot be used, or what a label map means is not known; the message says what to give.
    """
    rows = tuple(group_rows(read_manifest(manifest)))
    given = None if label_set_name is None else label_set(label_set_name)
    meanings: dict[str, LabelSet] = {}
    for case in rows:
        labels = case[0].labels
        if labels is not None:
            try:
                named = case[0].extra.get("label_set")
                meanings[case[0].case_id] = given or (label_set(named) if named else label_set_of(labels))
            except InputError as problem:
                raise type(problem)(f"{manifest}: case '{case[0].case_id}': {problem}") from problem
    return ManifestCases(manifest, rows, meanings)
