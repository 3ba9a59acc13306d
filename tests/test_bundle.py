"""The bundle: what is loaded is what was saved, or a sentence says what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalert.bundle import format as bundle_format
from dermalert.bundle.format import CARD, FACTS, GATE, MODEL, Bundle
from dermalert.errors import BundleError
from dermalert.judge.calibration import Calibration
from graphs import bundle, graph, point

NEWER = bundle(
    threshold=0.25,
    calibration=Calibration(3.0, (0.0, 0.1, -0.1)),
    model=graph(np.zeros((3, 3), np.float32)),
    card="newer\n",
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    bundle().save(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes `bundle.json` as a person with an editor would."""
    facts = json.loads((folder / FACTS).read_text())
    change(facts)
    (folder / FACTS).write_text(json.dumps(facts))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("threshold", [0.25, None], ids=["with a threshold", "without"])
def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path, threshold: float | None) -> None:
    made = bundle(threshold=threshold, card="Ärzte ≠ 95 %\n")
    made.save(tmp_path / "new" / "bundle")
    assert Bundle.load(tmp_path / "new" / "bundle") == made
    assert names(tmp_path / "new" / "bundle") == [FACTS, CARD, MODEL]


def test_an_older_bundle_is_replaced_and_the_notes_beside_it_stay(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    NEWER.save(saved)
    assert Bundle.load(saved) == NEWER
    assert (saved / "notes.txt").read_text() == "mine"


def test_the_same_bundle_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    bundle().save(tmp_path / "again")
    for file in (FACTS, MODEL, CARD):
        assert (saved / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_operating_points_are_had_by_name_and_the_first_is_the_default() -> None:
    made = bundle(operating_points=(point(0.1), replace(point(0.9), name="specific")))
    assert made.operating_point == made.point("screening") == point(0.1)
    assert made.point("specific").threshold == 0.9
    with pytest.raises(BundleError, match=r"no operating point 'strict'. It has: screening, specific\."):
        made.point("strict")
    assert bundle(threshold=None).operating_point is None
    with pytest.raises(BundleError, match=r"It has: none\."):
        bundle(threshold=None).point("screening")


def test_the_shipped_bundle_is_the_one_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_format, "files", lambda _: tmp_path)
    with pytest.raises(BundleError, match="0 models ship with this installation"):
        Bundle.shipped()
    bundle().save(tmp_path / "releases" / "some")
    assert Bundle.shipped() == bundle()
    bundle().save(tmp_path / "releases" / "other")
    with pytest.raises(BundleError, match="2 models ship"):
        Bundle.shipped()


# A save that breaks off


class _Died(BaseException):
    """Stands for a power cut: nothing catches it on purpose."""


def dying_at(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this process die before its `count`-th write to the disk, counted from 0."""
    done = 0
    write, replace_file = Path.open, Path.replace

    def step() -> None:
        nonlocal done
        done += 1
        if done > count:
            raise _Died

    def open_or_die(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "w" in mode:
            step()
        return write(self, mode, *args, **options)

    def replace_or_die(self: Path, target: Path) -> Path:
        step()
        return replace_file(self, target)

    monkeypatch.setattr(Path, "open", open_or_die)
    monkeypatch.setattr(Path, "replace", replace_or_die)


@pytest.mark.parametrize("steps", range(7))
def test_a_save_that_breaks_off_leaves_the_old_bundle_the_new_or_one_that_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    old = Bundle.load(saved)
    with monkeypatch.context() as patch:
        dying_at(steps, patch)
        try:
            NEWER.save(saved)
        except _Died:
            died = True
        else:
            died = False
    try:
        found = Bundle.load(saved)
    except BundleError:
        assert steps > 3, "the old bundle must live until the new one is written whole"
    else:
        assert found == (old if died else NEWER)
    NEWER.save(saved)
    assert Bundle.load(saved) == NEWER
    assert names(saved) == [FACTS, CARD, MODEL]


def test_a_first_save_that_breaks_off_is_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in range(6):
        folder = tmp_path / str(steps)
        with monkeypatch.context() as patch:
            dying_at(steps, patch)
            with pytest.raises(_Died):
                NEWER.save(folder)
        with pytest.raises(BundleError):
            Bundle.load(folder)


def test_a_full_disk_costs_no_old_bundle_and_leaves_no_rest(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Bundle.load(saved)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        NEWER.save(saved)
    assert Bundle.load(saved) == old
    assert names(saved) == [FACTS, CARD, MODEL]


# Tampering and damage


@pytest.mark.parametrize("file", [MODEL, CARD])
@pytest.mark.parametrize("at", [0, 5, -1])
def test_one_changed_byte_is_found(saved: Path, file: str, at: int) -> None:
    content = bytearray((saved / file).read_bytes())
    content[at] ^= 1
    (saved / file).write_bytes(content)
    with pytest.raises(BundleError, match=f"{file}: its content is not what the bundle was saved with"):
        Bundle.load(saved)


@pytest.mark.parametrize("file", [MODEL, CARD])
def test_a_cut_off_an_emptied_and_a_lengthened_file_are_found(saved: Path, file: str) -> None:
    whole = (saved / file).read_bytes()
    for content in (whole[:-1], b"", whole + b"\n"):
        (saved / file).write_bytes(content)
        with pytest.raises(BundleError, match="its content is not"):
            Bundle.load(saved)


@pytest.mark.parametrize("file", [FACTS, MODEL, CARD])
def test_a_missing_file_is_named(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(BundleError, match=f"{file}: cannot be read"):
        Bundle.load(saved)


def test_a_folder_that_is_no_bundle_says_what_one_is(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BundleError, match="A bundle is the folder `bundle/` of a training run"):
            Bundle.load(folder)


@pytest.mark.parametrize(
    "files",
    [
        {MODEL: "x"},
        {MODEL: "x", CARD: "x", "extra.py": "x"},
        {MODEL: "x", GATE: "x"},
        {"../" + MODEL: "x", CARD: "x"},
        {"/etc/passwd": "x", CARD: "x"},
        {MODEL + "\0": "x", CARD: "x"},
        {"MODEL.ONNX": "x", CARD: "x"},
        [MODEL, CARD],
        {},
        None,
        "model.onnx",
    ],
    ids=repr,
)
def test_no_other_file_is_ever_read(saved: Path, files: object, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved.parent / MODEL).write_bytes(graph())
    edit(saved, lambda facts: facts.update(files=files))
    touched: list[str] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: touched.append(self.name) or read(self))
    with pytest.raises(BundleError, match=rf"must list {MODEL} and {CARD}"):
        Bundle.load(saved)
    assert set(touched) <= {FACTS}


@pytest.mark.parametrize("digest", ["", "0" * 64, None, 17, ["0"], {"sha256": "0"}], ids=repr)
def test_a_hash_that_is_not_the_files_is_refused(saved: Path, digest: object) -> None:
    edit(saved, lambda facts: facts["files"].update({MODEL: digest}))
    with pytest.raises(BundleError, match="its content is not"):
        Bundle.load(saved)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None, [2], 1e999], ids=repr)
def test_another_format_is_named_with_the_one_that_is_read(saved: Path, version: object) -> None:
    edit(saved, lambda facts: facts.update(format=version))
    with pytest.raises(BundleError, match=r"bundle format .*; this Dermalert reads 2|not readable as JSON"):
        Bundle.load(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"bundle"',
        b"\xff\xfe\0\0",
        b"\x80\x04}q\0.",
        b"\0" * 100,
        b"[" * 100_000,
        b'{"format": 2, "temperature": NaN}',
    ],
    ids=["empty", "cut", "list", "null", "number", "text", "UTF-16", "pickle", "zeros", "deep", "NaN"],
)
def test_facts_that_are_no_json_object_are_one_clear_error(saved: Path, content: bytes) -> None:
    (saved / FACTS).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{FACTS}: "):
        Bundle.load(saved)


def test_facts_cut_off_anywhere_are_never_a_bundle(saved: Path) -> None:
    whole = (saved / FACTS).read_bytes()
    for end in range(0, len(whole) - 2, 7):
        (saved / FACTS).write_bytes(whole[:end])
        with pytest.raises(BundleError):
            Bundle.load(saved)


def remove(*keys: str | int) -> Callable[[dict[str, Any]], object]:
    def change(facts: Any) -> None:
        for key in keys[:-1]:
            facts = facts[key]
        del facts[keys[-1]]

    return change


def put(value: object, *keys: str | int) -> Callable[[dict[str, Any]], object]:
    def change(facts: Any) -> None:
        for key in keys[:-1]:
            facts = facts[key]
        facts[keys[-1]] = value

    return change


HUGE = 10**400  # larger than any float
BAD_FACTS: dict[str, Callable[[dict[str, Any]], object]] = {
    **{f"no {key}": remove(key) for key in ("name", "classes", "preprocessing", "calibration", "prevalence")},
    **{f"no {key}": remove(key) for key in ("operating_points", "conformal", "licence", "attribution")},
    **{f"no {key}": remove(key) for key in ("data", "versions")},
    "temperature of 0": put(0, "calibration", "temperature"),
    "negative temperature": put(-1.5, "calibration", "temperature"),
    "infinite temperature": put(HUGE, "calibration", "temperature"),
    "temperature in words": put("warm", "calibration", "temperature"),
    "temperature true": put(True, "calibration", "temperature"),
    "no temperature at all": put(None, "calibration", "temperature"),
    "calibration a number": put(1.5, "calibration"),
    "no bias": remove("calibration", "bias"),
    "a bias too few": put([0.0, 0.0], "calibration", "bias"),
    "an infinite bias": put([0.0, 0.0, HUGE], "calibration", "bias"),
    "a bias in words": put([0.0, 0.0, "warm"], "calibration", "bias"),
    "a prevalence that is missing": remove("prevalence", "nevus"),
    "a prevalence of nobody": put(0.0, "prevalence", "rash"),
    "a negative prevalence": put(-1, "prevalence", "nevus"),
    "prevalences that make no whole": put(0.9, "prevalence", "nevus"),
    "a prevalence in words": put("rare", "prevalence", "nevus"),
    "licence a list": put(["CC0"], "licence"),
    "attribution a text": put("me", "attribution"),
    "attribution of numbers": put([1], "attribution"),
    "conformal a number": put(0.9, "conformal"),
    "no coverage": remove("conformal", "coverage"),
    "a coverage of 1": put(1, "conformal", "coverage"),
    "a coverage in words": put("high", "conformal", "coverage"),
    "a category without a threshold": remove("conformal", "thresholds", "nevus"),
    "a category never in a set": put(1.5, "conformal", "thresholds", "nevus"),
    "a class in no category": remove("conformal", "categories", "nevus"),
    "a class in two categories": put(["melanoma", "nevus"], "conformal", "categories", "nevus"),
    "a category of an unknown class": put(["rash"], "conformal", "categories", "nevus"),
    "categories a list": put(["nevus"], "conformal", "categories"),
    "classes a text": put("melanoma", "classes"),
    "classes none": put([], "classes"),
    "one class": put(["melanoma"], "classes"),
    "a class twice": put(["melanoma", "nevus", "melanoma"], "classes"),
    "an unknown class": put(["melanoma", "nevus", "rash"], "classes"),
    "a class with a comma": put(["melanoma", "nevus", "a,b\n"], "classes"),
    "a class that is no text": put(["melanoma", "nevus", 7], "classes"),
    "a threshold and no melanoma": put(["nevus", "vascular lesion", "dermatofibroma"], "classes"),
    "no width": remove("preprocessing", "width"),
    "width 0": put(0, "preprocessing", "width"),
    "negative height": put(-16, "preprocessing", "height"),
    "half a pixel": put(20.5, "preprocessing", "width"),
    "width true": put(True, "preprocessing", "width"),
    "width in words": put("20", "preprocessing", "width"),
    "a picture of a terabyte": put(1_000_000, "preprocessing", "width"),
    "an infinite width": put(HUGE, "preprocessing", "width"),
    "another fit": put("crop", "preprocessing", "fit"),
    "another range": put([-1, 1], "preprocessing", "range"),
    "a threshold that never alerts": put(1.5, "operating_points", 0, "threshold"),
    "an infinite threshold": put(HUGE, "operating_points", 0, "threshold"),
    "a negative threshold": put(-0.1, "operating_points", 0, "threshold"),
    "a threshold in words": put("high", "operating_points", 0, "threshold"),
    "no threshold": remove("operating_points", 0, "threshold"),
    "no interval": remove("operating_points", 0, "sensitivity"),
    "an operating point that is a number": put([0.5], "operating_points"),
    "operating points that are one": put({"name": "screening"}, "operating_points"),
    "an operating point twice": lambda facts: facts["operating_points"].append(facts["operating_points"][0]),
    "a target of 3": put(3, "operating_points", 0, "target"),
    "data a number": put(3, "data"),
    "data a list": put([["source", "x"]], "data"),
    "versions a text": put("1.0", "versions"),
    "a version that is a list": put([1, 0], "versions", "dermalert"),
    "name a list": put(["plain"], "name"),
}


@pytest.mark.parametrize("fault", BAD_FACTS)
def test_facts_that_make_no_sense_are_refused_before_anything_is_scored(saved: Path, fault: str) -> None:
    edit(saved, BAD_FACTS[fault])
    with pytest.raises(BundleError, match=rf"{FACTS}: a field is missing or wrong"):
        Bundle.load(saved)


@pytest.mark.parametrize("key", ["temperature", "threshold"])
def test_a_nan_is_refused_since_no_probability_would_ever_reach_it(saved: Path, key: str) -> None:
    text = (saved / FACTS).read_text()
    value = 1.5 if key == "temperature" else 0.5
    (saved / FACTS).write_text(text.replace(f'"{key}": {value}', f'"{key}": NaN'))
    assert "NaN" in (saved / FACTS).read_text()
    with pytest.raises(BundleError, match="not readable as JSON"):
        Bundle.load(saved)


def test_a_bundle_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    for broken in (
        bundle(calibration=Calibration(float("nan"), (0.0, 0.0, 0.0))),
        bundle(threshold=float("nan")),
        bundle(classes=("melanoma", "rash", "nevus")),
    ):
        with pytest.raises((BundleError, ValueError)):
            broken.save(tmp_path / "bundle")
        with pytest.raises(BundleError):
            Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize("file", [FACTS, MODEL, CARD])
def test_a_file_over_the_limit_is_not_read(saved: Path, file: str) -> None:
    with (saved / file).open("r+b") as stream:
        stream.truncate(bundle_format.MAX_BYTES + 1)  # sparse: takes no room
    with pytest.raises(BundleError, match=rf"{file}: .* no bundle file is larger than"):
        Bundle.load(saved)


def test_facts_of_gigabytes_are_not_parsed(saved: Path) -> None:
    with (saved / FACTS).open("r+b") as stream:
        stream.truncate(64 << 20)
    with pytest.raises(BundleError, match=rf"{FACTS}: .* larger than"):
        Bundle.load(saved)


@pytest.mark.parametrize("file", [FACTS, MODEL, CARD])
def test_pipes_devices_and_folders_in_a_files_place_are_refused_at_once(saved: Path, file: str) -> None:
    def pipe() -> None:
        os.mkfifo(saved / file)

    def device() -> None:
        (saved / file).symlink_to("/dev/zero")

    def folder() -> None:
        (saved / file).mkdir()

    (saved / file).unlink()
    for make in (pipe, device):
        make()
        with pytest.raises(BundleError, match=f"{file}: is not a file"):
            Bundle.load(saved)
        (saved / file).unlink()
    folder()
    with pytest.raises(BundleError, match=f"{file}: is not a file"):
        Bundle.load(saved)


UNPICKLER = """
    import sys
    from pathlib import Path

    def watch(event, arguments):
        if event == "pickle.find_class":
            raise SystemExit(f"unpickled {arguments}")

    from dermalert.bundle.format import Bundle
    from dermalert.errors import BundleError
    from dermalert.score.engine import Engine

    sys.addaudithook(watch)
    try:
        Engine(Bundle.load(Path(sys.argv[1])))
    except BundleError:
        print("refused")
"""


class _Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo owned",)


def test_nothing_is_ever_unpickled(saved: Path) -> None:
    payload = pickle.dumps(_Payload())
    (saved / MODEL).write_bytes(payload)
    edit(saved, lambda facts: facts["files"].update({MODEL: hashlib.sha256(payload).hexdigest()}))
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(line[4:] for line in UNPICKLER.splitlines()), str(saved)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout.split() == ["refused"], ran.stderr


# The gate's arrays


class _Gate:
    """Stands for the real one, which checks its arrays itself."""

    def __init__(self, **arrays: np.ndarray) -> None:
        self.arrays = arrays

    def to_arrays(self) -> dict[str, np.ndarray]:
        return self.arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> _Gate:
        return cls(centre=arrays["centre"], axes=arrays["axes"])


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bundle_format, "Gate", _Gate)
    gate = _Gate(centre=np.arange(4, dtype=np.float32), axes=np.eye(4, dtype=np.float32))
    bundle(gate=gate).save(tmp_path / "gated")
    return tmp_path / "gated"


def with_gate(folder: Path, content: bytes) -> None:
    (folder / GATE).write_bytes(content)
    edit(folder, lambda facts: facts["files"].update({GATE: hashlib.sha256(content).hexdigest()}))


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def test_the_gates_arrays_come_back_as_they_were_saved(gated: Path) -> None:
    found = Bundle.load(gated).gate
    assert found is not None
    arrays = found.to_arrays()
    np.testing.assert_array_equal(arrays["centre"], np.arange(4))
    np.testing.assert_array_equal(arrays["axes"], np.eye(4))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_a_damaged_gate_and_a_missing_one_are_named(gated: Path) -> None:
    content = (gated / GATE).read_bytes()
    (gated / GATE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{GATE}: its content is not what the bundle was saved with"):
        Bundle.load(gated)
    (gated / GATE).unlink()
    with pytest.raises(BundleError, match=f"{GATE}: cannot be read"):
        Bundle.load(gated)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        npz(centre=np.zeros(4), axes=np.zeros((4, 4)))[:-60],
        npz(centre=np.zeros(4)),
        npz(centre=np.array([_Payload()], dtype=object), axes=np.zeros(4)),
        pickle.dumps(_Payload()),
    ],
    ids=["empty", "text", "cut off", "an array missing", "an array of objects", "a pickle"],
)
def test_what_is_no_gate_is_refused_whatever_its_hash(gated: Path, content: bytes) -> None:
    with_gate(gated, content)
    with pytest.raises(BundleError, match=rf"{GATE}: is no gate"):
        Bundle.load(gated)


def test_a_gate_that_unpacks_to_gigabytes_is_not_unpacked(gated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_format, "MAX_GATE", 4096)
    with_gate(gated, npz(centre=np.zeros(100_000), axes=np.zeros(4)))
    assert (gated / GATE).stat().st_size < 4096
    with pytest.raises(BundleError, match=r"bytes unpacked"):
        Bundle.load(gated)
