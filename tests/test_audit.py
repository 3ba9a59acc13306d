"""The audit: every fault planted in a drawn set is found without a hint, and nothing false is called identical."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermalert import drawn
from dermalert.drawn import DrawnSet, draw_class_folders, draw_table
from dermalert.errors import DataError
from dermalert.intake.audit import UNLABELLED, AuditReport, medians_by_class
from dermalert.intake.manifest import Manifest
from dermalert.intake.samelesion import SUSPECTED
from dermalert.intake.statistics import STATISTICS
from dermalert.stages import auditing
from dermalert.stages.auditing import run_audit, summary
from dermalert.taxonomy import label_of

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Audited:
    """A set, what the audit says of it and what it left on disk."""

    set: DrawnSet
    report: AuditReport
    out: Path

    @property
    def json(self) -> dict[str, Any]:
        def refuse(word: str) -> None:
            raise AssertionError(f"{word} in audit.json")

        found: dict[str, Any] = json.loads((self.out / "audit.json").read_text("utf-8"), parse_constant=refuse)
        return found


def audited(made: DrawnSet, out: Path, **options: Any) -> Audited:
    return Audited(made, run_audit(made.root, out, command="dermalert audit", made=MADE, **options), out)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """A set with four faults of each kind."""
    root = tmp_path_factory.mktemp("faulty")
    made = draw_class_folders(root / "set", per_class=20, test_per_class=3, seed=0)
    return audited(made, root / "audit")


@pytest.fixture(scope="module")
def twofold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Audited, list[tuple[str, str]]]:
    """Class folders whose pictures are squashed copies of half of a table's, audited against the table; and the pairs
    of ours and theirs."""
    root = tmp_path_factory.mktemp("twofold")
    table = draw_table(root / "table", lesions=60, seed=4)
    theirs = sorted(path.name for path in (table.root / "images").iterdir())
    labels = dict(
        line.split(",")[1:3] for line in (table.root / "metadata.csv").read_text(encoding="utf-8").splitlines()[1:]
    )
    pairs = []
    for number, name in enumerate(theirs):
        code = labels[Path(name).stem]
        if number % 2 or code in {"akiec", "bkl"}:
            continue
        word = label_of(code).name
        ours = root / "set" / ("Test" if number % 6 == 0 else "Train") / word / f"copy_{number:03}.jpg"
        ours.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(table.root / "images" / name) as picture:
            picture.resize((180, 180), Image.Resampling.BICUBIC).save(ours, "JPEG", quality=90)
        pairs.append((ours.relative_to(root / "set").as_posix(), f"images/{name}"))
    others = draw_class_folders(root / "set" / "more", per_class=6, test_per_class=0, seed=9, faults=False)
    made = DrawnSet(root / "set", len(pairs) + others.pictures, drawn.Planted())
    return audited(made, root / "audit", against=table.root), pairs


def pairs_of(groups: dict[str, Any]) -> set[frozenset[str]]:
    return {frozenset(group["paths"]) for group in groups["list"]}


def as_sets(pairs: Any) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in pairs}


# Faults planted, faults found


def test_every_identical_pair_is_found_and_nothing_else_is_called_identical(faulty: Audited) -> None:
    planted = faulty.set.planted
    expected = as_sets([*planted.duplicates, *planted.conflicts, *planted.leaks, *planted.copies])
    assert pairs_of(faulty.json["identical"]) == expected
    assert faulty.json["identical"]["groups"] == len(expected) == 16
    assert faulty.json["identical"]["pictures"] == 32


@pytest.mark.parametrize("seed", [1, 2])
def test_no_seed_hides_a_fault(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "SUSPECT_UP_TO", 0)
    one = audited(draw_class_folders(tmp_path / "set", per_class=9, test_per_class=2, seed=seed), tmp_path / "audit")
    planted = one.set.planted
    expected = as_sets([*planted.duplicates, *planted.conflicts, *planted.leaks, *planted.copies])
    assert pairs_of(one.json["identical"]) == expected
    assert pairs_of(one.json["similar"]) == as_sets(planted.near_duplicates)
    assert one.json["leak"]["list"] == sorted(test for _, test in planted.leaks)
    assert len(one.json["refused"]) == len(planted.refused)


def test_contradictory_labels_are_those_planted(faulty: Audited) -> None:
    identical = faulty.json["identical"]
    assert pairs_of({"list": [group for group in identical["list"] if group["contradictory"]]}) == as_sets(
        faulty.set.planted.conflicts
    )
    assert identical["contradictory"] == len(faulty.set.planted.conflicts)


def test_test_pictures_that_train_knows_are_those_planted(faulty: Audited) -> None:
    leak = faulty.json["leak"]
    assert leak["list"] == sorted(test for _, test in faulty.set.planted.leaks)
    assert (leak["leaked"], leak["test_pictures"]) == (4, 9 * 3 + 4)
    assert not set(leak["list"]) & set(leak["suspected_list"])
    assert faulty.json["identical"]["across_parts"] == 4


def test_near_duplicates_are_found_and_no_two_lesions_are_taken_for_one_picture(faulty: Audited) -> None:
    assert pairs_of(faulty.json["similar"]) == as_sets(faulty.set.planted.near_duplicates)


def test_names_of_copies_are_found(faulty: Audited) -> None:
    assert sorted(faulty.json["copy_names"]) == sorted(copy for _, copy in faulty.set.planted.copies)


def test_suspected_pairs_are_listed_with_how_sure_and_nothing_known_is_suspected(faulty: Audited) -> None:
    suspected = faulty.json["suspected"]
    assert suspected["log_odds_from"] == SUSPECTED
    assert all(pair["log_odds"] >= SUSPECTED - 0.001 for pair in suspected["list"])
    assert not pairs_of(suspected) & (pairs_of(faulty.json["identical"]) | pairs_of(faulty.json["similar"]))
    assert suspected["groups"] < 10


def test_refused_files_are_those_planted_each_with_a_reason_and_a_mend(faulty: Audited) -> None:
    refused = faulty.json["refused"]
    paths = {Path(one["path"]).relative_to(faulty.set.root).as_posix() for one in refused}
    assert paths == set(faulty.set.planted.refused)
    assert {one["code"] for one in refused} == {"not_a_picture", "broken"}
    assert all(one["reason"] and one["mend"] for one in refused)


def test_a_set_without_faults_has_none(tmp_path: Path) -> None:
    made = draw_class_folders(tmp_path / "set", per_class=6, test_per_class=2, seed=3, faults=False)
    one = audited(made, tmp_path / "audit")
    found = one.json
    assert [found[key]["groups"] for key in ("identical", "similar", "lesions")] == [0, 0, 0]
    assert (found["leak"]["leaked"], found["copy_names"], found["refused"]) == (0, [], [])
    assert found["resolutions"] == {"counts": {"keep": made.pictures}, "rows": []}


# The manifest


def test_the_manifest_has_a_row_a_picture_with_group_resolution_and_reason(faulty: Audited) -> None:
    manifest = Manifest.read(faulty.out / "manifest.parquet")
    assert len(manifest) == faulty.set.pictures
    assert manifest.table.equals(faulty.report.manifest.table)
    assert all(path.is_file() for path in manifest.paths())
    assert None not in manifest.column("group")
    assert set(manifest.column("resolution")) == {"keep", "drop"}
    assert all(
        reason
        for action, reason in zip(manifest.column("resolution"), manifest.column("reason"), strict=True)
        if action != "keep"
    )
    assert set(manifest.column("split")) == {None}


def test_what_belongs_together_shares_a_group_and_nothing_else_does(faulty: Audited) -> None:
    manifest, planted = faulty.report.manifest, faulty.set.planted
    group = dict(zip(manifest.column("path"), manifest.column("group"), strict=True))
    picture = dict(zip(manifest.column("path"), manifest.column("duplicate_group"), strict=True))
    one_picture = [*planted.duplicates, *planted.conflicts, *planted.leaks, *planted.copies, *planted.near_duplicates]
    for first, second in one_picture:
        assert group[first] == group[second]
        assert picture[first] == picture[second] is not None
    together = {path for pair in one_picture for path in pair}
    assert {path for path, number in picture.items() if number is not None} == together
    suspected = {path for pair in pairs_of(faulty.json["suspected"]) for path in pair}
    alone = Counter(group[path] for path in group if path not in together | suspected)
    assert set(alone.values()) == {1}


def test_both_of_a_contradiction_are_dropped_and_one_of_each_copy_is_kept(faulty: Audited) -> None:
    manifest, planted = faulty.report.manifest, faulty.set.planted
    action = dict(zip(manifest.column("path"), manifest.column("resolution"), strict=True))
    for first, second in planted.conflicts:
        assert (action[first], action[second]) == ("drop", "drop")
    for first, second in (*planted.duplicates, *planted.near_duplicates):
        assert sorted((action[first], action[second])) == ["drop", "keep"]
    for original, copy in planted.copies:
        assert (action[original], action[copy]) == ("keep", "drop")
    for first, second in planted.leaks:
        assert (action[first], action[second]) == ("keep", "keep")
    dropped = 2 * len(planted.conflicts) + len(planted.duplicates) + len(planted.near_duplicates) + len(planted.copies)
    assert Counter(action.values())["drop"] == dropped


def test_no_file_is_changed_and_nothing_is_written_into_the_set(tmp_path: Path) -> None:
    made = draw_class_folders(tmp_path / "set", per_class=2, test_per_class=1, seed=6)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.root.rglob("*") if path.is_file()}
    audited(made, tmp_path / "audit")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert len([path for path in made.root.rglob("*") if path.is_file()]) == len(before)


# audit.json

KEYS = {
    "": "format dermalert data refused balance identical similar lesions suspected copy_names leak against statistics "
    "shift resolutions",
    "data": "source kind pictures refused parts formats notes",
    "balance": "counts ratio majority majority_accuracy",
    "identical": "groups pictures contradictory across_parts list",
    "similar": "radius_bits groups pictures contradictory across_parts list",
    "lesions": "groups pictures contradictory across_parts list",
    "suspected": "log_odds_from groups pictures contradictory across_parts list",
    "leak": "test_pictures leaked list suspected suspected_list",
    "statistics": " ".join(STATISTICS),
    "shift": "first second auc telling",
    "resolutions": "counts rows",
}


def test_the_keys_of_the_json_are_those_that_scripts_rely_on(faulty: Audited) -> None:
    found = faulty.json
    assert {key: set(found[key] if key else found) for key in KEYS} == {
        key: set(words.split()) for key, words in KEYS.items()
    }
    assert found["format"] == 1
    assert set(found["identical"]["list"][0]) == {"paths", "labels", "parts", "contradictory"}
    assert set(found["refused"][0]) == {"path", "code", "reason", "mend"}
    assert set(found["resolutions"]["rows"][0]) == {"path", "action", "given", "diagnosis", "reason"}
    assert set(found["statistics"]["sharpness"]) == {"least", "lower_quartile", "median", "upper_quartile", "most"}
    assert found["against"] is None
    assert found["data"] == {
        "source": "set",
        "kind": "class folders",
        "pictures": faulty.set.pictures,
        "refused": 4,
        "parts": {"test": 31, "train": faulty.set.pictures - 31},
        "formats": {"JPEG": faulty.set.pictures},
        "notes": [],
    }


def test_paths_in_the_json_are_those_of_the_manifest(faulty: Audited) -> None:
    found, known = faulty.json, set(faulty.report.manifest.column("path"))
    named = [
        path for key in ("identical", "similar", "suspected") for group in found[key]["list"] for path in group["paths"]
    ]
    named += [*found["copy_names"], *found["leak"]["list"], *(row["path"] for row in found["resolutions"]["rows"])]
    assert set(named) <= known


def test_the_balance_says_what_always_naming_the_largest_class_would_reach(tmp_path: Path) -> None:
    made = draw_class_folders(
        tmp_path / "set", per_class={"nevus": 12, "melanoma": 4}, test_per_class=0, size=(40, 40), faults=False
    )
    balance = audited(made, tmp_path / "audit").json["balance"]
    assert balance == {
        "counts": {"nevus": 12, "melanoma": 4},
        "ratio": 3.0,
        "majority": "nevus",
        "majority_accuracy": 0.75,
    }


def test_an_audit_is_the_same_when_it_is_made_again(faulty: Audited, tmp_path: Path) -> None:
    audited(faulty.set, tmp_path, workers=1)
    for name in ("audit.json", "audit.html"):
        assert (tmp_path / name).read_bytes() == (faulty.out / name).read_bytes(), name
    assert Manifest.read(tmp_path / "manifest.parquet").table.equals(faulty.report.manifest.table)


def test_two_drawn_parts_of_one_source_are_hard_to_tell_apart(faulty: Audited) -> None:
    auc = faulty.json["shift"]["auc"]
    assert auc["low"] <= auc["value"] <= auc["high"]
    assert auc["low"] < 0.65
    assert {one["statistic"] for one in faulty.json["shift"]["telling"]} == set(STATISTICS)


def test_names_of_any_kind_stand_in_the_json(tmp_path: Path) -> None:
    made = draw_class_folders(tmp_path / "set", per_class=2, test_per_class=0, size=(40, 40), faults=False)
    folder = made.root / "Train" / "nevus"
    first, second = sorted(folder.iterdir())
    first.rename(folder / '日本 \u2028\n".jpg')
    (folder / "broken\r.jpg").write_bytes(b"")
    try:
        second.rename(folder / os.fsdecode(b"b\xff.jpg"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    one = audited(made, tmp_path / "audit")
    assert 'Train/nevus/日本 \u2028\n".jpg' in one.report.manifest.column("path")
    refused = {Path(entry["path"]).name: entry["reason"] for entry in one.json["refused"]}
    assert refused == {"broken\r.jpg": "it is empty", "b\\udcff.jpg": "its name is not valid UTF-8"}


# Sets of other kinds


def test_pictures_without_labels_or_parts_are_audited_as_far_as_that_goes(tmp_path: Path) -> None:
    drawn.draw_many(tmp_path / "set", count=4, size=(40, 40))
    one = audited(DrawnSet(tmp_path / "set", 4, drawn.Planted()), tmp_path / "audit")
    found = one.json
    assert (found["balance"], found["leak"], found["shift"], found["against"]) == (None, None, None, None)
    assert found["data"]["kind"] == "pictures"
    assert found["data"]["parts"] == {"none": 4}
    assert list(medians_by_class(one.report)) == [UNLABELLED]


def test_one_picture_can_be_audited(tmp_path: Path) -> None:
    (picture,) = drawn.draw_many(tmp_path, count=1, size=(40, 40))
    report = run_audit(picture, tmp_path / "audit", command="c", made=MADE)
    assert len(report.manifest) == 1
    assert report.identical == report.suspected == ()


def test_too_few_test_pictures_give_no_shift_figure_but_the_reason(tmp_path: Path) -> None:
    made = draw_class_folders(
        tmp_path / "set", per_class=4, test_per_class=1, size=(40, 40), faults=False, classes=("nevus", "melanoma")
    )
    auc = audited(made, tmp_path / "audit").json["shift"]["auc"]
    assert auc["value"] is None
    assert "fewer than" in auc["why"]


def test_lesion_numbers_of_a_table_make_groups(tmp_path: Path) -> None:
    made = draw_table(tmp_path / "set", lesions=30, seed=2, size=(64, 48))
    one = audited(made, tmp_path / "audit")
    manifest = one.report.manifest
    group = dict(zip(manifest.column("path"), manifest.column("group"), strict=True))
    assert made.planted.same_lesion
    for first, second in made.planted.same_lesion:
        assert group[first] == group[second]
    lesions = set(manifest.column("lesion_id"))
    assert one.json["lesions"]["pictures"] - one.json["lesions"]["groups"] == made.pictures - len(lesions)
    assert one.json["data"]["kind"] == "table"


def test_a_set_too_large_for_the_search_is_audited_without_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auditing, "SUSPECT_UP_TO", 3)
    made = draw_class_folders(
        tmp_path / "set", per_class=2, test_per_class=0, size=(40, 40), faults=False, classes=("nevus", "melanoma")
    )
    assert audited(made, tmp_path / "audit").json["suspected"]["groups"] == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "not searched for photographs that look like one lesion" in told.err


def test_a_picture_that_vanishes_while_it_is_audited_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = draw_class_folders(tmp_path / "set", per_class=3, test_per_class=0, size=(180, 180), seed=8)
    first, second = made.planted.duplicates[0]
    examine = auditing.examine

    def and_lose_one(*arguments: Any, **options: Any) -> Any:
        found = examine(*arguments, **options)
        (made.root / second).unlink()
        return found

    monkeypatch.setattr(auditing, "examine", and_lose_one)
    one = audited(made, tmp_path / "audit")
    assert frozenset((first, second)) in pairs_of(one.json["identical"])
    assert "Picture not shown" in (one.out / "audit.html").read_text(encoding="utf-8")


def test_data_that_is_none_leaves_no_output(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for data in ("set", "none"):
        with pytest.raises(DataError):
            run_audit(tmp_path / data, tmp_path / "audit", command="c", made=MADE)
    assert not (tmp_path / "audit").exists()


def test_a_disk_that_fills_up_leaves_no_half_json(
    faulty: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "audit.json").write_text("from last week")
    write_text = Path.write_text

    def full(self: Path, text: str, *arguments: Any, **options: Any) -> int:
        write_text(self, text[:1000], *arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(auditing, "audited", lambda *_, **__: faulty.report)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        run_audit(faulty.set.root, tmp_path, command="c", made=MADE)
    assert (tmp_path / "audit.json").read_text() == "from last week"


# Against another set


def test_squashed_copies_of_another_sets_pictures_are_found_each_with_its_original(
    twofold: tuple[Audited, list[tuple[str, str]]],
) -> None:
    one, pairs = twofold
    against = one.json["against"]
    assert {(row["path"], row["theirs"]) for row in against["list"]} == set(pairs)
    assert against["matched"] == len(pairs) > 15
    assert against["source"] == "table"
    for row in against["list"]:
        assert row["bits"] <= 16
        assert not label_of(row["label"]).contradicts(label_of(row["their_label"]))
        assert row["their_lesion"].startswith("DRAWN_L")


def test_lesions_that_the_other_set_knows_join_our_groups(twofold: tuple[Audited, list[tuple[str, str]]]) -> None:
    one, _ = twofold
    lesion = {row["path"]: row["their_lesion"] for row in one.json["against"]["list"]}
    manifest = one.report.manifest
    group = dict(zip(manifest.column("path"), manifest.column("group"), strict=True))
    shared = [(a, b) for a in lesion for b in lesion if a < b and lesion[a] == lesion[b]]
    assert shared
    for first, second in shared:
        assert group[first] == group[second]
    across = {path for a, b in shared for path in (a, b) if {a[:4], b[:4]} == {"Test", "Trai"} and path[:4] == "Test"}
    assert across <= set(one.json["leak"]["list"])


def test_the_other_set_can_decide_a_contradiction_and_its_folder_is_not_touched(tmp_path: Path) -> None:
    table = draw_table(tmp_path / "table", lesions=14, seed=1)
    rows = [line.split(",") for line in (table.root / "metadata.csv").read_text(encoding="utf-8").splitlines()[1:]]
    melanoma = next(row[1] for row in rows if row[2] == "mel")
    content = (table.root / "images" / f"{melanoma}.jpg").read_bytes()
    for word in ("melanoma", "nevus"):
        (tmp_path / "set" / word).mkdir(parents=True)
        (tmp_path / "set" / word / "x.jpg").write_bytes(content)
    report = run_audit(tmp_path / "set", tmp_path / "audit", against=table.root, command="c", made=MADE)
    manifest = report.manifest
    told = dict(zip(manifest.column("path"), manifest.column("resolution"), strict=True))
    assert told == {"melanoma/x.jpg": "keep", "nevus/x.jpg": "drop"}
    assert "table says melanoma" in manifest.column("reason")[0]


# What a terminal is told


def test_the_summary_gives_the_counts_of_the_json_a_line_each(
    faulty: Audited, twofold: tuple[Audited, list[tuple[str, str]]]
) -> None:
    told = "\n".join(summary(faulty.report))
    assert f"{faulty.set.pictures} pictures, 4 files refused" in told
    assert "16 groups of byte-identical files (4 under contradictory labels, 4 across Train and Test)" in told
    assert "4 groups of nearly the same picture" in told
    assert "4 of 31 test pictures are known to Train" in told
    assert "4 file names say “copy”" in told
    assert "Train told from Test by picture statistics: AUC" in told
    assert "proposed: 20 drop, " in told
    other = "\n".join(summary(twofold[0].report))
    assert f"{len(twofold[1])} pictures stand in table too" in other
    assert "nan" not in (told + other).lower().split()


def test_medians_are_those_of_each_class(faulty: Audited) -> None:
    medians = medians_by_class(faulty.report)
    words = np.array(faulty.report.manifest.column("diagnosis"))
    red = faulty.report.statistics[words == "nevus", STATISTICS.index("red")]
    assert medians["nevus"]["red"] == pytest.approx(float(np.median(red)))
    assert all(math.isfinite(value) for row in medians.values() for value in row.values())
