"""Train the segmenter of any contrast, from label maps alone.

    python -m benchmarks.thigh --data ../shared/data -o runs/thigh [--jobs 2] [--until 10]

Three trainings, one after the other; ``--until`` stops the one that is under way after so many of its epochs.
It learns from the 35 label maps of `huashan_labels` but one: number 003 may be a person whose images it is checked on
(`benchmarks.thigh_real`); and from digital people. No image is learnt from, and none chooses anything. A training that
was interrupted goes on. `benchmarks.release_thigh` puts the result into the package.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from musclekit.neural.training.segmentation import NETWORK
from musclekit.workflows.phantoms import write_phantoms
from musclekit.workflows.train_segmenter import train_segmenter_on_manifest

#: Each goes on from the best epoch of the one before, with legs that are harder to read.
PLANS = {
    step: Path(__file__).with_name(name)
    for step, name in (("first", "thigh.toml"), ("further", "thigh_further.toml"), ("cut", "thigh_cut.toml"))
}
#: Whose label maps are left out: images of huashan-003 are checked on.
LEFT_OUT = ("THIGH_003",)
#: Digital people beside the 31 real ones, who have shapes of their own.
PHANTOMS = 4


def subject_of(name: str) -> str:
    """Return the person of a label map by its name; one number is taken for one person, whatever the contrast."""
    source, *_, number, _ = name.split("_")
    if source == "MyoSegmenTUM":
        return f"myosegmentum-{name.split('_')[2]}"
    return f"{'helsinki' if source == 'Helsinki' else 'huashan'}-{number}"


def write_manifest(data: Path, path: Path) -> None:
    """Write the manifest of the label maps: of real people, and of `PHANTOMS` digital ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    phantoms = path.parent / "phantoms"
    write_phantoms(phantoms, subjects=PHANTOMS, grades=("healthy",), slices=12, seed=3, prefix="digital")
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["case_id", "subject", "labels", "label_set"])
        for file in sorted((data / "huashan_labels").glob("*.nii.gz")):
            name = file.name.removesuffix(".nii.gz")
            if not any(part in name for part in LEFT_OUT):
                table.writerow([name, subject_of(name), file.resolve(), "huashan-11"])
        for file in sorted(phantoms.glob("*_dseg.nii.gz")):
            name = file.name.removesuffix("_dseg.nii.gz")
            table.writerow([name, name, file.resolve(), "thigh-full-sided"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--until", type=int, default=None)
    given = parser.parse_args()
    write_manifest(given.data, given.out / "label_maps.csv")
    start = None
    for step, plan in PLANS.items():
        done = train_segmenter_on_manifest(
            plan, given.out / "label_maps.csv", given.out / step, jobs=given.jobs, until=given.until,
            start=start,
            progress=lambda done, total, text: print(f"\r{100 * done / total:.1f} % {text}", end="", flush=True),
        )  # fmt: skip
        print()
        if done.epochs_done < done.epochs:
            # The next starts from what this one ends with.
            break
        start = str(given.out / step / NETWORK)


if __name__ == "__main__":
    main()
