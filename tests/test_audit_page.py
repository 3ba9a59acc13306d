"""The audit's page: self-contained, readable aloud, harmless whatever files are called, and free of their metadata."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bad_files import saved
from dermalert.drawn import draw_class_folders, draw_lesion, draw_many, draw_table
from dermalert.errors import Unreadable, printable
from dermalert.intake import audit_page
from dermalert.intake.audit import AuditReport
from dermalert.intake.audit_page import write_page
from dermalert.intake.index import index
from dermalert.intake.showing import EDGE, pixels_by_id
from dermalert.intake.sources import list_data
from dermalert.stages.auditing import run_audit
from reading import Reading, read

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET = b"Jane Doe, 51.5007 N, 0.1246 W"
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)<\\script>\u202egpj{{ 7*7 }}'


@dataclass(frozen=True)
class Page:
    """One page as text and as a screen reader has it, with the report behind it."""

    html: str
    reading: Reading
    report: AuditReport

    @property
    def pictures(self) -> list[bytes]:
        """The content of every picture in it."""
        return [base64.b64decode(one) for one in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', self.html)]


def page_of(data: Path, out: Path, **options: object) -> Page:
    report = run_audit(data, out, command="dermalert audit set/", made=MADE, **options)  # type: ignore[arg-type]
    html = (out / "audit.html").read_text(encoding="utf-8")
    return Page(html, read(html), report)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Page:
    root = tmp_path_factory.mktemp("page")
    draw_class_folders(root / "set", per_class=10, test_per_class=4, size=(180, 180), seed=2)
    return page_of(root / "set", root / "audit")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Names that try to run, and pictures that carry who, where and when."""
    root = tmp_path_factory.mktemp("hostile")
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    exif.get_ifd(0x8825)[1] = "N"
    pixels = draw_lesion("nevus", np.random.default_rng(0), width=200, height=160)
    noted = saved("JPEG", image=Image.fromarray(pixels), exif=exif, comment=SECRET, quality=92)
    assert noted.count(SECRET) == 2
    for word in ("nevus", "melanoma", HOSTILE):
        for part in ("Train", "Test"):
            (root / "set" / part / word).mkdir(parents=True)
            (root / "set" / part / word / f"{HOSTILE}.jpg").write_bytes(noted)
            (root / "set" / part / word / f"{HOSTILE} (1).jpg").write_bytes(noted)
    (root / "set" / "Train" / "nevus" / f"broken{HOSTILE}.jpg").write_bytes(b"")
    return page_of(root / "set", root / "audit")


@pytest.mark.parametrize("which", ["faulty", "hostile"])
def test_the_page_is_well_formed_and_everything_in_it_can_be_read_aloud(
    which: str, request: pytest.FixtureRequest
) -> None:
    page: Page = request.getfixturevalue(which)
    assert page.reading.problems == []
    assert [level for level, _ in page.reading.headings][:2] == [1, 2]


@pytest.mark.parametrize("which", ["faulty", "hostile"])
def test_the_page_needs_no_network_and_no_other_file(which: str, request: pytest.FixtureRequest) -> None:
    html = request.getfixturevalue(which).html
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html
    assert not re.search(r'(?:src|href)="(?!#|data:)', html)


def test_names_are_shown_and_never_run(hostile: Page) -> None:
    assert "<script" not in hostile.html
    assert "<img src=x" not in hostile.html
    assert "\u202e" not in hostile.html
    assert "49" not in re.findall(r"gpj(\d+)", hostile.html)
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert f"Train/nevus/{shown}.jpg" in hostile.reading.text
    assert f"broken{shown}.jpg" in hostile.reading.text
    assert f"Folder {printable(HOSTILE)!r} names no diagnosis" in hostile.reading.text


def test_thumbnails_carry_nothing_of_the_files_metadata(hostile: Page) -> None:
    assert len(hostile.pictures) > 5
    for content in hostile.pictures:
        assert SECRET not in content
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "JPEG"
            assert not picture.getexif()
            assert not {"exif", "comment", "icc_profile", "xmp"} & set(picture.info)
    assert SECRET.decode() not in hostile.html


def test_thumbnails_are_small_and_show_the_picture(faulty: Page) -> None:
    for content in faulty.pictures:
        with Image.open(io.BytesIO(content)) as picture:
            assert 100 < max(picture.size) <= 128
            assert np.asarray(picture).std() > 5


def test_each_finding_has_its_section_with_its_count_and_its_pictures(faulty: Page) -> None:
    text = " ".join(faulty.reading.text.split())
    report = faulty.report
    assert f"{len(report.identical)} groups of {2 * len(report.identical)} files" in text
    assert f"{len(report.leaked)} of {9 * 4 + 2} test pictures show a picture or a lesion" in text
    assert f"{len(report.similar)} groups of {2 * len(report.similar)} files, by a 256-bit picture hash" in text
    headings = [heading for _, heading in faulty.reading.headings]
    for heading in (
        "Identical files",
        "Under contradictory labels",
        "Under one label",
        "Test pictures that Train knows",
        "Nearly the same picture",
        "Balance of the classes",
        "Can Train be told from Test?",
        "Proposals",
        "Refused files",
    ):
        assert heading in headings
    paths = report.manifest.column("path")
    for group in (*report.identical, *report.similar):
        for row in group.rows:
            assert paths[row] in text
    for refusal in report.refused:
        assert refusal.reason in text
        assert refusal.mend in text


def test_links_in_the_contents_lead_to_sections_of_the_page(faulty: Page, hostile: Page) -> None:
    for page in (faulty, hostile):
        targets = set(re.findall(r'href="#([^"]+)"', page.html))
        assert targets <= set(re.findall(r'id="([^"]+)"', page.html))
        assert len(targets) > 7


def test_long_lists_are_cut_and_say_where_the_rest_is(
    faulty: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_page, "SHOWN_GROUPS", 1)
    monkeypatch.setattr(audit_page, "SHOWN_ROWS", 2)
    write_page(faulty.report, tmp_path / "p.html", command="c", made=MADE)
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    text = " ".join(read(html).text.split())
    assert "The first 1 of" in text
    rows = sum(reason is not None for reason in faulty.report.manifest.column("reason"))
    assert f"and {rows - 2} more in audit.json." in text
    assert read(html).problems == []
    assert html.count("<img") < faulty.html.count("<img")


def test_many_copies_of_one_picture_are_shown_in_part(tmp_path: Path) -> None:
    (one,) = draw_many(tmp_path / "set" / "nevus", count=1, size=(64, 48))
    for number in range(9):
        (one.parent / f"again_{number}.jpg").write_bytes(one.read_bytes())
    page = page_of(tmp_path / "set", tmp_path / "audit")
    assert page.html.count("<img") == audit_page.IN_A_ROW
    assert "and 4 more" in page.reading.text


def test_the_other_set_stands_beside_ours_and_differing_labels_come_first(tmp_path: Path) -> None:
    table = draw_table(tmp_path / "table", lesions=14, seed=1)
    for number, picture in enumerate(sorted((table.root / "images").iterdir())[:6]):
        target = tmp_path / "set" / "vascular lesion" / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture.read_bytes())
    page = page_of(tmp_path / "set", tmp_path / "audit", against=table.root)
    assert page.reading.problems == []
    assert "The other data set" in [heading for _, heading in page.reading.headings]
    assert "6 pictures also stand among the" in " ".join(page.reading.text.split())
    heads = re.findall(r"vascular lesion / ([a-z ]+)", page.reading.text)
    differing = [head != "vascular lesion" for head in heads]
    assert differing == sorted(differing, reverse=True)
    assert any(differing)


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_without_labels_make_a_page_too(tmp_path: Path, count: int) -> None:
    draw_many(tmp_path / "set", count=count, size=(40, 40))
    page = page_of(tmp_path / "set", tmp_path / "audit")
    assert page.reading.problems == []
    assert "no label" in page.reading.text
    assert "nan" not in page.reading.text.lower().split()


def test_a_set_with_few_test_pictures_says_why_no_shift_is_told(tmp_path: Path) -> None:
    draw_class_folders(
        tmp_path / "set", per_class=3, test_per_class=1, size=(40, 40), faults=False, classes=("nevus", "melanoma")
    )
    page = page_of(tmp_path / "set", tmp_path / "audit")
    assert "Cannot be computed. A part has fewer than" in page.reading.text
    assert page.reading.problems == []


def test_the_same_audit_gives_the_same_page_whole_or_not_at_all(faulty: Page, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_page(faulty.report, tmp_path / name, command="dermalert audit set/", made=MADE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == faulty.html.encode()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


# The pictures behind it


def test_pixels_are_those_of_the_file_scaled_to_fit_and_never_enlarged(tmp_path: Path) -> None:
    for name, size in (("large.png", (900, 600)), ("small.png", (50, 30)), ("thin.png", (2000, 2))):
        Image.new("RGB", size, (200, 10, 30)).save(tmp_path / name)
    pixels = pixels_by_id(index(list_data(tmp_path)).manifest)
    assert pixels("large.png").shape == (round(600 * EDGE / 900), EDGE, 3)
    assert pixels("small.png").shape == (30, 50, 3)
    assert pixels("thin.png").shape == (1, EDGE, 3)
    assert pixels("small.png")[0, 0].tolist() == [200, 10, 30]


def test_pictures_are_loaded_when_they_are_asked_for_and_a_lost_one_is_refused_then(tmp_path: Path) -> None:
    (one, two) = draw_many(tmp_path, count=2, size=(40, 40))
    pixels = pixels_by_id(index(list_data(tmp_path)).manifest)
    one.unlink()
    assert pixels(two.name).shape == (40, 40, 3)
    with pytest.raises(Unreadable):
        pixels(one.name)
