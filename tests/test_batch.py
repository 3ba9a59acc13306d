"""Scoring many files: one row each, in order, whatever they are; and the alert is where the bundle says."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bad_files import BYTES, HONEST, ON_DISK
from dermalert.drawn import draw_many
from dermalert.errors import BundleError, DataError, RefusedFile
from dermalert.intake.decode import Limits, load
from dermalert.intake.given import Given, given_at
from dermalert.intake.index import index
from dermalert.intake.sources import list_data
from dermalert.score.batch import Finding, score
from dermalert.score.durable import Output
from dermalert.score.engine import Engine
from dermalert.score.output import lines_of
from dermalert.stages.scoring import run_score
from graphs import CLASSES, bundle, graph, paint, point
from peak import PEAK

RED, GREEN, BLUE = (220, 40, 40), (40, 220, 40), (40, 40, 220)
COLUMNS = "path,status,melanoma,malignant,alert,diagnosis,p_melanoma,p_nevus,p_vascular_lesion,ood,quality,message,set"


def found(*paths: Path, **options: object) -> list[Finding]:
    return list(score(given_at(paths), bundle(), **options))  # type: ignore[arg-type]


def given(*paths: Path) -> list[Given]:
    """Pictures as they are, whether they exist or not."""
    return [Given(str(path), path=path) for path in paths]


def table(findings: list[Finding]) -> list[dict[str, str]]:
    lines = lines_of("csv", CLASSES)
    return list(csv.DictReader(io.StringIO(lines.head + "".join(map(lines.line, findings)), newline="")))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


def refused(path: str) -> RefusedFile | None:
    try:
        load(path)
    except RefusedFile as refusal:
        return refusal
    return None


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a bundle in it."""
    bundle().save(tmp_path / "bundle")
    return tmp_path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every bad file of the corpus and every unusual good one, in one folder."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, (make, _) in BYTES.items():
        (folder / f"{name}.jpg").write_bytes(make())
    for name, content in HONEST.items():
        (folder / f"good {name}.jpg").write_bytes(content())
    for name, (put, _) in ON_DISK.items():
        put(folder / name)
    return folder


# What a finding says


def test_a_finding_holds_what_the_engine_computes(tmp_path: Path) -> None:
    (one,) = found(paint(tmp_path / "red.png", RED))
    pixels = np.full((1, 16, 20, 3), RED, np.uint8)
    expected = Engine(bundle()).probabilities(pixels)[0]
    assert one.probabilities == pytest.approx(expected.tolist(), rel=1e-9)
    assert one.melanoma == one.probabilities[0]
    assert (one.status, one.diagnosis, one.alert, one.message) == ("scored", "melanoma", "refer", "")


def test_malignant_is_the_sum_over_the_malignant_diagnoses(tmp_path: Path) -> None:
    made = bundle(classes=("basal cell carcinoma", "melanoma", "nevus"))
    (one,) = score(given(paint(tmp_path / "x.png", GREEN)), made)
    assert one.malignant == pytest.approx(one.probabilities[0] + one.probabilities[1])
    assert one.melanoma == one.probabilities[1]
    assert one.diagnosis == "melanoma"


@pytest.mark.parametrize("colour", [RED, GREEN, (128, 128, 128)])
def test_an_alert_is_raised_at_the_threshold_itself_and_not_a_hair_below(
    tmp_path: Path, colour: tuple[int, int, int]
) -> None:
    picture = paint(tmp_path / "x.png", colour)
    (one,) = found(picture)
    assert one.melanoma is not None
    for threshold, alert in (
        (one.melanoma, "refer"),
        (np.nextafter(one.melanoma, 1), "none"),
        (np.nextafter(one.melanoma, 0), "refer"),
    ):
        (again,) = score(given(picture), bundle(operating_points=(point(float(threshold)),)))
        assert again.alert == alert, threshold


def test_a_prevalence_changes_the_probabilities_as_bayes_says_and_no_alert_and_no_set(tmp_path: Path) -> None:
    pictures = [paint(tmp_path / f"{red}.png", (red, 120, 40)) for red in range(0, 256, 25)]
    asked = bundle(prevalence={"melanoma": 0.25, "nevus": 0.5, "vascular lesion": 0.25})
    before, after = (list(score(given(*pictures), asked, prevalence=share)) for share in (None, 0.01))
    for one, other in zip(before, after, strict=True):
        assert one.melanoma is not None
        assert other.melanoma is not None
        odds = one.melanoma / (1 - one.melanoma) * (0.01 / 0.99) / (0.25 / 0.75)
        assert other.melanoma == pytest.approx(odds / (1 + odds))
        assert sum(other.probabilities) == pytest.approx(1)
        assert other.melanoma == other.probabilities[0]
        assert other.diagnosis == CLASSES[int(np.argmax(other.probabilities))]
        assert (other.alert, other.possible) == (one.alert, one.possible)
    assert {one.alert for one in after} == {"refer", "none"}
    assert any(one.alert == "refer" and (one.melanoma or 0) < 0.5 for one in after)
    assert any(one.diagnosis != other.diagnosis for one, other in zip(before, after, strict=True))


def test_the_operating_point_asked_for_decides_and_the_first_where_none_is(tmp_path: Path) -> None:
    picture = paint(tmp_path / "x.png", (128, 128, 128))
    made = bundle(operating_points=(point(0.1), replace(point(0.9), name="specific")))
    asked = [next(score(given(picture), made, point=name)).alert for name in (None, "screening", "specific")]
    assert asked == ["refer", "refer", "none"]
    with pytest.raises(BundleError, match=r"no operating point 'strict'. It has: screening, specific"):
        score(given(picture), made, point="strict")


def test_a_prevalence_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    picture = paint(tmp_path / "x.png", RED)
    with pytest.raises(DataError, match="between 0 and 1"):
        next(score(given(picture), bundle(), prevalence=1.0))
    with pytest.raises(DataError, match="not calibrated on melanomas and others"):
        next(
            score(
                given(picture),
                bundle(threshold=None, classes=("nevus", "dermatofibroma", "vascular lesion")),
                prevalence=0.1,
            )
        )


def test_the_set_names_what_cannot_be_ruled_out_the_likeliest_first(tmp_path: Path) -> None:
    pictures = [paint(tmp_path / "red.png", RED), paint(tmp_path / "grey.png", (128, 140, 120)), tmp_path / "none.png"]
    told = list(score(given(*pictures), bundle()))
    assert [one.possible for one in told] == [("melanoma",), ("nevus", "melanoma", "vascular lesion"), ()]
    assert [row["set"] for row in table(told)] == ["melanoma", "nevus; melanoma; vascular lesion", ""]
    assert next(score(given(*pictures), bundle(conformal=None))).possible == ()


def test_a_bundle_without_a_threshold_gives_no_alert_and_no_all_clear(tmp_path: Path) -> None:
    (one,) = score(given(paint(tmp_path / "x.png", RED)), bundle(threshold=None))
    assert (one.status, one.alert) == ("scored", None)
    assert table([one])[0]["alert"] == ""


def test_a_model_that_knows_no_melanoma_names_none(tmp_path: Path) -> None:
    made = bundle(threshold=None, classes=("nevus", "basal cell carcinoma", "vascular lesion"))
    (one,) = score(given(paint(tmp_path / "x.png", RED)), made)
    assert (one.melanoma, one.alert, one.diagnosis) == (None, None, "nevus")
    assert one.malignant == one.probabilities[1]


def test_an_upright_picture_and_the_same_one_turned_by_its_exif_score_alike(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 20, 3)).astype(np.uint8)
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(pixels).save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(turned, exif=exif)
    exif[0x010F] = "A camera"
    Image.fromarray(pixels).save(tmp_path / "noted.png", exif=Image.Exif())
    first, second, third = found(upright, turned, tmp_path / "noted.png")
    assert first.probabilities == second.probabilities == third.probabilities


# One finding a picture, in order


@pytest.mark.parametrize("workers", [1, 3])
def test_findings_come_in_the_order_of_the_pictures_over_several_batches(tmp_path: Path, workers: int) -> None:
    colours = [RED, GREEN, BLUE]
    paths = [paint(tmp_path / f"{n:02}.png", colours[n % 3]) for n in range(18)]
    paths[5].write_bytes(b"")
    paths[8].write_bytes(b"text")
    told = found(*paths, workers=workers, batch=4)
    assert [finding.path for finding in told] == [str(path) for path in paths]
    expected = ["melanoma", "nevus", "vascular lesion"] * 6
    expected[5] = expected[8] = None  # type: ignore[call-overload]
    assert [finding.diagnosis for finding in told] == expected


def test_whatever_the_files_are_each_gets_one_row_and_the_batch_goes_on(corpus: Path, tmp_path: Path) -> None:
    told = found(corpus)
    assert sorted(finding.path for finding in told) == sorted(str(path) for path in corpus.iterdir())
    for finding in told:
        if (refusal := refused(finding.path)) is not None:
            assert finding == Finding(finding.path, "error", message=f"{refusal.reason}. {refusal.mend}")
            assert refusal.reason
            assert refusal.mend
        else:
            assert (finding.status, finding.message) == ("scored", "")
            assert sum(finding.probabilities) == pytest.approx(1)
    assert sum(finding.status == "scored" for finding in told) >= len(HONEST)
    assert sum(finding.status == "error" for finding in told) >= len(BYTES)


def test_the_corpus_becomes_a_table_that_any_reader_splits_alike(corpus: Path, home: Path) -> None:
    counts = run_score([corpus], home / "bundle", home / "alerts.csv")
    told = rows(home / "alerts.csv")
    assert len(told) == len(list(corpus.iterdir())) == counts["scored"] + counts["error"]
    for row in told:
        if row["status"] == "error":
            assert row["message"]
            assert {row[name] for name in COLUMNS.split(",") if name not in ("path", "status", "message")} == {""}
        else:
            assert 0 <= float(row["melanoma"]) <= 1
            assert row["alert"] in {"refer", "none"}


def test_limits_hold_for_scoring_too(tmp_path: Path) -> None:
    picture = paint(tmp_path / "x.png", RED)
    (one,) = score(given(picture), bundle(), limits=Limits(max_pixels=10))
    assert one.status == "error"
    assert "10 are allowed" in one.message


def test_a_stream_of_pictures_is_not_gathered_before_it_is_scored(tmp_path: Path) -> None:
    picture = paint(tmp_path / "x.png", RED)
    taken = 0

    def endless() -> Iterator[Given]:
        nonlocal taken
        while True:
            taken += 1
            yield Given("x.png", path=picture)

    stream = score(endless(), bundle(), workers=1, batch=4)
    for done in range(1, 100):
        assert next(stream).status == "scored"
        assert taken - done <= 4 * 4 + 4 + 4  # batches under way, and pictures


# Where pictures are


def test_a_link_that_points_to_itself_or_to_nothing_is_a_row_that_says_so(home: Path) -> None:
    (home / "loop.jpg").symlink_to("loop.jpg")
    (home / "gone.jpg").symlink_to("nothing.jpg")
    picture = paint(home / "x.png", RED)
    paths = [home / "loop.jpg", home / "gone.jpg", picture]
    assert run_score(paths, home / "bundle", home / "alerts.csv") == {"scored": 1, "error": 2, "refer": 1}
    told = rows(home / "alerts.csv")
    assert [row["path"] for row in told] == [str(path) for path in paths]
    assert "points back to itself" in told[0]["message"]
    assert "gone" in told[1]["message"]


def test_pictures_of_a_manifest_that_are_gone_are_rows_that_say_so(home: Path) -> None:
    pictures = draw_many(home / "set", count=3, size=(32, 24))
    index(list_data(home / "set")).manifest.write(home / "manifest.parquet")
    pictures[1].unlink()
    run_score([home / "manifest.parquet"], home / "bundle", home / "alerts.csv")
    assert [row["status"] for row in rows(home / "alerts.csv")] == ["scored", "error", "scored"]


# The table


def test_the_columns_are_those_of_the_contract(home: Path) -> None:
    paint(home / "x.png", RED)
    run_score([home / "x.png"], home / "bundle", home / "alerts.csv")
    text = (home / "alerts.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == COLUMNS
    assert text.endswith("\n")
    (row,) = rows(home / "alerts.csv")
    assert (row["path"], row["status"], row["alert"], row["diagnosis"]) == (
        str(home / "x.png"),
        "scored",
        "refer",
        "melanoma",
    )
    assert row["melanoma"] == row["p_melanoma"]
    assert (row["ood"], row["quality"], row["message"]) == ("", "", "")
    assert sum(float(row[f"p_{name.replace(' ', '_')}"]) for name in CLASSES) == pytest.approx(1, abs=1e-5)


NAMES = [
    "line\nbreak.png",
    "carriage\rreturn.png",
    "x\r\nevil.png,scored,0,0,none,nevus,0,1,0,,,.png",
    'quote".png',
    "comma,semicolon;.png",
    " leading and trailing .png",
    "日本語 Ärzte 🦠.png",
    "e\u0301 not composed.png",
    "turned\u202egnp.png",
    "\u2028separator\x85.png",
    "tab\t.png",
    "=1+1.png",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_file_name_stands_whole_in_one_row(home: Path, name: str) -> None:
    bad, good = paint(home / "set" / name, RED), paint(home / "set" / "zz.png", GREEN)
    run_score([home / "set"], home / "bundle", home / "alerts.csv")
    assert sorted(row["path"] for row in rows(home / "alerts.csv")) == sorted([str(bad), str(good)])
    bad.write_bytes(b"broken")
    run_score([home / "set"], home / "bundle", home / "alerts.csv")
    assert {row["path"]: row["status"] for row in rows(home / "alerts.csv")} == {str(bad): "error", str(good): "scored"}


def test_a_lone_carriage_return_ends_no_row_for_readers_that_take_it_for_a_line_end(home: Path) -> None:
    picture = paint(home / "x\rinjected.png", RED)
    run_score([picture], home / "bundle", home / "alerts.csv")
    with (home / "alerts.csv").open(newline="", encoding="utf-8") as stream:
        content = stream.read()
    assert f'"{picture}"' in content


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_file_name_stands_whole_in_one_json_line(home: Path, name: str) -> None:
    picture = paint(home / name, RED)
    run_score([picture], home / "bundle", home / "alerts.jsonl")
    (line,) = (home / "alerts.jsonl").read_bytes().removesuffix(b"\n").split(b"\n")
    assert json.loads(line)["path"] == str(picture)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_name_that_is_not_utf8_costs_nothing_but_its_own_spelling(home: Path, form: str) -> None:
    paint(home / "set" / "a.png", RED)
    stray = home / "set" / os.fsdecode(b"b\xff.png")
    try:
        paint(stray, RED)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    counts = run_score([home / "set", stray], home / "bundle", home / "alerts", form=form)
    assert (counts["scored"], counts["error"]) == (2, 1)
    text = (home / "alerts").read_text(encoding="utf-8")
    assert text.count("b\\\\udcff.png" if form == "jsonl" else "b\\udcff.png") == 2
    assert "not valid UTF-8" in text


def test_json_lines_hold_numbers_and_nulls(home: Path) -> None:
    (home / "broken.png").write_bytes(b"")
    run_score([paint(home / "x.png", RED), home / "broken.png"], home / "bundle", home / "out.jsonl")
    good, bad = map(json.loads, (home / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert list(good) == list(bad) == COLUMNS.split(",")
    assert isinstance(good["melanoma"], float)
    assert good["ood"] is good["quality"] is None
    assert {bad[name] for name in COLUMNS.split(",")[2:-2]} == {None}
    assert (good["set"], bad["set"]) == ("melanoma", "")
    assert "empty" in bad["message"]


@pytest.mark.parametrize("name", ["alerts.csv", "alerts.jsonl", "alerts.parquet", None])
def test_counts_are_those_of_the_rows(home: Path, name: str | None) -> None:
    (home / "set").mkdir()
    (home / "set" / "broken.png").write_bytes(b"")
    for n in range(5):
        paint(home / "set" / f"{n}.png", (RED, GREEN)[n % 2])
    counts = run_score([home / "set"], home / "bundle", name and home / name)
    assert counts == {"scored": 5, "error": 1, "refer": 3}


# The file and its failures


def test_the_result_takes_its_name_only_when_it_is_whole(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [paint(home / "set" / f"{n}.png", RED) for n in range(5)]
    (home / "alerts.csv").write_text("from last week")
    write, seen = Output.write, []

    def watched(output: Output, finding: Finding) -> None:
        seen.append((home / "alerts.csv").read_text())
        if finding.path == str(pictures[3]):
            raise KeyboardInterrupt
        write(output, finding)

    monkeypatch.setattr(Output, "write", watched)
    with pytest.raises(KeyboardInterrupt):
        run_score([home / "set"], home / "bundle", home / "alerts.csv")
    assert seen == ["from last week"] * 4
    assert (home / "alerts.csv").read_text() == "from last week"
    assert sorted(path.name for path in home.iterdir()) == ["alerts.csv", "bundle", "set"]


def test_a_bundle_that_turns_out_broken_leaves_no_half_table(home: Path) -> None:
    replace(bundle(), model=graph(np.full((3, 3), np.nan, np.float32))).save(home / "bundle")
    paint(home / "x.png", RED)
    with pytest.raises(BundleError, match="no number"):
        run_score([home / "x.png"], home / "bundle", home / "alerts.csv")
    assert not (home / "alerts.csv").exists()
    assert not (home / "alerts.csv.part").exists()


def test_where_nothing_could_be_scored_the_rows_are_kept_and_it_is_an_error(home: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (home / name).write_bytes(b"")
    with pytest.raises(DataError, match="Not one of 2 files could be scored"):
        run_score([home / "a.jpg", home / "b.jpg"], home / "bundle", home / "alerts.csv")
    assert [row["status"] for row in rows(home / "alerts.csv")] == ["error", "error"]


def test_a_folder_without_pictures_and_a_path_to_nothing_are_named(home: Path) -> None:
    (home / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no pictures there"):
        run_score([home / "empty"], home / "bundle", home / "alerts.csv")
    with pytest.raises(DataError, match=r"none: there is no such file or folder"):
        run_score([home / "none"], home / "bundle", home / "alerts.csv")


def test_no_picture_is_ever_replaced_by_a_table(home: Path) -> None:
    picture = paint(home / "x.PNG", RED)
    before = picture.read_bytes()
    with pytest.raises(DataError, match="no picture is ever replaced"):
        run_score([picture], home / "bundle", picture)
    assert picture.read_bytes() == before


def test_pictures_are_not_changed_and_nothing_is_written_beside_them(corpus: Path, home: Path) -> None:
    paint(home / "set" / "x.png", RED)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (home / "set").iterdir()}
    run_score([home / "set"], home / "bundle", home / "alerts.csv")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (home / "set").iterdir()} == before


def test_without_a_file_the_rows_go_to_stdout_and_all_else_to_stderr(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "broken\x1b[31m.png").write_bytes(b"")
    paint(home / "x.png", RED)
    run_score([home / "broken\x1b[31m.png", home / "x.png"], home / "bundle", None)
    told = capsys.readouterr()
    assert [row["status"] for row in csv.DictReader(io.StringIO(told.out, newline=""))] == ["error", "scored"]
    assert r"broken\x1b[31m.png: it is empty." in told.err
    assert "\x1b[31m" not in told.err


# Memory

SCORED = (
    PEAK
    + """
import sys
from dermalert.stages.scoring import run_score

run_score(int(sys.argv[1]) * sorted(Path(sys.argv[2]).iterdir()), None, Path(sys.argv[3]))
print(peak())
"""
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs the peak that Unix keeps")
def test_memory_is_flat_however_many_pictures_there_are(tmp_path: Path) -> None:
    draw_many(tmp_path / "set", count=16, size=(512, 384))
    few, many = (
        float(subprocess.check_output([sys.executable, "-c", SCORED, times, tmp_path / "set", tmp_path / "a.csv"]))
        for times in ("4", "20")
    )
    assert many < 600
    assert many - few < 15  # MiB; kept at the size of the model, 256 pictures more would be 19
