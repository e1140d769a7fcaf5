"""The report: nothing from outside, nothing unescaped, nothing silently left out."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest

from musclekit.errors import FormatError, OutputError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set
from musclekit.quantify import measure
from musclekit.report import (
    Failure,
    Figure,
    Picture,
    Report,
    ScanSection,
    Table,
    montage,
    render_report,
    scan_figures,
    write_report,
)

NASTY = "Müller & Söhne <script>alert('1')</script> \"x\" %s {{ 7*7 }}.nii.gz"

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Collects what a page holds, and fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def scan() -> ScanSection:
    shape = (6, 40, 60)
    z, y, x = np.indices(shape)
    ids = np.zeros(shape, np.uint8)
    for centre, (first, second) in ((15, (1, 3)), (45, (2, 4))):  # left leg: odd ids
        ring = (y - 20) ** 2 + (x - centre) ** 2
        ids[(ring < 100) & (z > 0)] = first
        ids[(ring < 20) & (z > 1) & (z < 5)] = second
    grid = Grid.from_spacing(shape, (5, 2, 2))
    labels = LabelMap(ids, grid, label_set("huashan-11-sided"))
    rng = np.random.default_rng(0)
    fat = Image(rng.uniform(10, 40, shape), grid, Contrast.FAT)
    water = Image(rng.uniform(100, 200, shape), grid, Contrast.WATER)
    measures = measure(labels, fat, fat=fat, water=water)
    return ScanSection(
        "thigh one",
        montage(fat, labels),
        measures.structures,
        measures.slices,
        measures.asymmetry,
        warnings=measures.warnings,
        details={"contrast": "fat"},
        figures=scan_figures(measures, labels, fat),
    )


def whole(scan: ScanSection) -> Report:
    table = Table(NASTY, pd.DataFrame({NASTY: [NASTY]}), NASTY)
    picture = Picture(NASTY, scan.picture_png, NASTY, NASTY)
    return Report(
        NASTY,
        NASTY,
        "21 November 2026",
        [scan, ScanSection(NASTY, warnings=[NASTY], details={NASTY: NASTY}, tables=[table], pictures=[picture])],
        [Failure(NASTY, NASTY)],
        [Table(NASTY, pd.DataFrame({NASTY: [NASTY], "value": [0.5]}), NASTY)],
        [Figure(NASTY, '<svg width="100pt"></svg>', NASTY, NASTY)],
        [NASTY],
        {NASTY: {NASTY: [NASTY]}},
    )


def test_every_text_is_escaped(scan):
    page = Page(render_report(whole(scan)))
    assert not page.all("script")
    # 1 title tag + every place that shows it; the text itself arrives unharmed.
    assert page.text.count(NASTY) >= 15
    assert "49" not in [word for word in page.text.split() if word == "49"]
    assert any(NASTY in str(attributes.get("alt")) for attributes in page.all("img"))


def test_nothing_is_fetched_and_no_script_runs(scan):
    text = render_report(whole(scan))
    page = Page(text)
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), value
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(r"https?://", text.replace("http-equiv", ""))
    assert not page.all("link")
    assert "default-src 'none'" in str([a["content"] for a in page.all("meta") if a.get("http-equiv")])
    for attributes in page.all("img"):
        kind, _, data = str(attributes["src"]).partition(";base64,")
        if kind == "data:image/svg+xml":
            drawing = base64.b64decode(data).decode()
            outside = set(re.findall(r"https?://[^\"'\s<]+", drawing))
            assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, never fetched
            assert "<script" not in drawing


def test_links_lead_to_places_of_the_page(scan):
    page = Page(render_report(whole(scan)))
    places = [a["id"] for _, a in page.tags if "id" in a]
    assert len(places) == len(set(places))
    links = [str(a["href"])[1:] for a in page.all("a")]
    assert links == ["scan-1", "scan-2"]
    assert set(links) <= set(places)
    for _, attributes in page.tags:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in places


def test_the_page_is_made_for_phones_and_for_those_who_cannot_see_it(scan):
    page = Page(render_report(whole(scan)))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.all("html")[0]["lang"] == "en"
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("h1")) == 1
    boxes = [a for a in page.all("div") if "scroll" in str(a.get("class")).split()]
    assert len(boxes) == len(page.all("table"))


def test_dark_print_and_phone_have_styles_of_their_own(scan):
    text = render_report(whole(scan))
    for query in ("(prefers-color-scheme: dark)", "@media print", "(max-width: 640px)"):
        assert query in text


def luminance(color: str) -> float:
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [("ink", "card"), ("ink", "page"), ("faint", "card"), ("faint", "page"), ("faint", "stripe"), ("accent", "card"),
     ("ok", "ok-bg"), ("warn", "warn-bg"), ("bad", "bad-bg"), ("warn", "card"), ("bad", "card")],
)  # fmt: skip
def test_letters_stand_out_from_their_ground(scheme, ink, ground):
    text = render_report(Report("x"))
    palette = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", text.split(":root {")[1 + scheme].split("}")[0]))
    one, two = sorted((luminance(palette[ink]), luminance(palette[ground])))
    assert (two + 0.05) / (one + 0.05) >= 4.5  # WCAG AA


def test_what_was_done_and_what_failed_is_counted(scan):
    text = Page(render_report(whole(scan))).text
    warnings = len(scan.warnings) + 2
    assert f"Scans 3 Done 2 Failed 1 Warnings {warnings}" in text
    assert "Not a medical device" in text
    assert "21 November 2026" in text


def test_a_failed_scan_is_named_with_its_message():
    text = Page(render_report(Report("x", failures=[Failure("leg.nii.gz", "the file is empty; export it again")]))).text
    assert "leg.nii.gz the file is empty; export it again" in text
    assert "Scans 1 Done 0 Failed 1" in text


def rows_of(text: str, title: str) -> list[list[str]]:
    """Cells of the table in the region of that name."""
    part = text.split(f'aria-label="{title}"')[1].split("</table>")[0]
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in part.split("<tr>")[1:]
    ]


def test_measures_are_shown_with_headings_units_and_status(scan):
    text = render_report(Report("x", scans=[scan]))
    head, *rows = rows_of(text, "Measures")
    assert head[:5] == ["Structure", "Side", "VolumemL", "Status", "CSA meancm²"]
    assert "FF voxel mean%" in head
    table = {(row[0], row[1]): row for row in rows}
    assert len(table) == 22
    first = scan.structures.iloc[0]
    sartorius = table["sartorius", "left"]
    assert sartorius[3] == "cut last slice"
    assert sartorius[2] == f"{first['volume_ml']:.1f}"
    assert sartorius[4] == f"{first['csa_mean_mm2'] / 100:.2f}"
    assert sartorius[head.index("FF voxel mean%")] == f"{first['fat_fraction_voxel_mean'] * 100:.1f}"
    assert table["rectus femoris", "left"][3] == "ok"
    # Absent is said, and no number stands for it.
    assert table["gracilis", "right"][3] == "absent"
    assert {*table["gracilis", "right"][2:3], *table["gracilis", "right"][4:]} == {"–"}
    assert 'class="chip ok">ok<' in text
    assert 'class="chip attention">cut<' in text
    assert 'class="chip absent">absent<' in text


def test_columns_that_nobody_declared_or_that_hold_nothing_are_left_out(scan):
    frame = scan.structures.assign(secret=1.0, hu_mean=np.nan)
    head = rows_of(render_report(Report("x", scans=[ScanSection("a", structures=frame)])), "Measures")[0]
    assert not any("secret" in name or "HU" in name or "Left out" in name for name in head)


def test_asymmetry_is_a_row_a_structure(scan):
    head, *rows = rows_of(render_report(Report("x", scans=[scan])), "Left and right")
    assert head[:3] == ["Structure", "Status", "Volume%"]
    assert [row[0] for row in rows] == list(dict.fromkeys(scan.asymmetry["structure"]))
    assert rows[0][1] == "cut"
    index = scan.asymmetry.iloc[0]["index_percent"]
    assert rows[0][2] == f"{index:.1f}".replace("-0.0", "0.0").replace("-", "−")


def test_slices_without_the_structure_are_not_listed_and_long_tables_say_what_is_missing(scan):
    text = render_report(Report("x", scans=[scan]))
    present = scan.slices[scan.slices["status"] != "absent"]
    assert len(rows_of(text, "Slice by slice")) == len(present) + 1
    many = pd.concat([present] * 40)
    text = render_report(Report("x", scans=[ScanSection("a", slices=many)]))
    assert len(rows_of(text, "Slice by slice")) == 401
    assert f"{len(many) - 400} more rows are in the CSV file" in text


def test_only_what_is_shown_is_explained(scan):
    text = Page(render_report(Report("x", scans=[scan]))).text
    assert "mean of F / (F + W) over the voxels" in text
    assert "Hounsfield" not in text
    assert "How to read the numbers" not in Page(render_report(Report("x"))).text


def test_the_picture_opens_large_without_a_script(scan):
    page = Page(render_report(Report("x", scans=[scan])))
    (box,) = page.all("input")
    assert box["type"] == "checkbox"
    assert "thigh one" in str(box["aria-label"])
    picture = next(a for a in page.all("img") if str(a["src"]).startswith("data:image/jpeg"))
    data = np.frombuffer(base64.b64decode(str(picture["src"]).partition(",")[2]), np.uint8)
    shown, given = (cv2.imdecode(d, cv2.IMREAD_COLOR) for d in (data, np.frombuffer(scan.picture_png, np.uint8)))
    assert (picture["width"], picture["height"]) == (str(given.shape[1]), str(given.shape[0]))
    assert np.abs(shown.astype(int) - given.astype(int)).mean() < 3


def test_a_scan_has_other_tables_and_pictures_of_its_own(scan):
    table = Table("Translation", pd.DataFrame({"check": ["edges"], "found": ["0.25"]}), "Read it.")
    picture = Picture("Before and after", scan.picture_png, "green and red", "Green is more.")
    text = render_report(Report("x", scans=[ScanSection("one", tables=[table], pictures=[picture])]))
    page = Page(text)
    for words in ("Translation", "Read it.", "Before and after", "Green is more."):
        assert words in page.text
    assert [a["alt"] for a in page.all("img")] == ["green and red"]
    assert rows_of(text, "Translation")[1][0] == "edges"


def test_a_picture_that_is_none_is_refused():
    with pytest.raises(FormatError, match="the picture of a report must be a PNG"):
        render_report(Report("x", scans=[ScanSection("a", b"not a picture, whatever its name may say")]))


def test_parameters_are_shown_by_dotted_names():
    text = Page(render_report(Report("x", parameters={"method": {"name": "gmm", "window": [1, 2]}, "seed": 3}))).text
    assert "method.name gmm" in text
    assert "method.window [1, 2]" in text
    assert "seed 3" in text


def test_the_same_report_is_the_same_bytes(scan, tmp_path):
    report = whole(scan)
    write_report(report, tmp_path / "a.html")
    write_report(report, tmp_path / "b.html")
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert first.decode("utf-8").startswith("<!DOCTYPE html>")


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"report\.html"):
        write_report(Report("x"), tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_numbers_have_true_minus_signs_and_no_negative_zero():
    frame = pd.DataFrame({"case_id": ["a", "b", "c"], "value": [-0.0004, -1234.5, 0.25], "count": [1, 2, 30000]})
    rows = rows_of(render_report(Report("x", tables=[Table("T", frame)])), "T")
    assert rows[0] == ["Case", "value", "count"]
    assert [row[1] for row in rows[1:]] == ["0.000", "−1\u202f234.500", "0.250"]
    assert [row[2] for row in rows[1:]] == ["1", "2", "30\u202f000"]


def test_no_p_is_nought() -> None:
    frame = pd.DataFrame({"n": [20, 20], "p": [0.00004, 0.0123], "p_corrected": [0.0004, 0.0246]})
    page = render_report(Report("x", tables=[Table("T", frame)]))
    assert page.count("&lt; 0.001") == 2
    assert "0.012" in page
    assert "0.000" not in page
