"""Workers: every case ends as the model says or with a reason, whatever its picture does to the decoder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dermalert.bundle.format import Bundle, digest_of
from dermalert.bundle.gate import Gate
from dermalert.clinic import decoder as decoding
from dermalert.clinic.decoder import Decoder
from dermalert.clinic.files import Files
from dermalert.clinic.model import Model, ModelInUse
from dermalert.clinic.receiving import receive
from dermalert.clinic.schema import Case, Origin, Status, TrailEntry
from dermalert.clinic.settings import Settings
from dermalert.clinic.store import Store
from dermalert.clinic.worker import Worker, Workers
from dermalert.errors import BrokenPicture, BundleError, DecoderLost, TooLarge
from dermalert.intake.decode import Limits, load
from dermalert.score.batch import findings_of
from dermalert.score.gate import measure_quality
from graphs import WEIGHTS, bundle, graph
from pictures import png
from postgres import Postgres

RED, GREEN, BLUE, BLACK = (200, 10, 10), (10, 200, 10), (10, 10, 200), (0, 0, 0)
SIZE = (20, 16)


class Clinic:
    """A worker without a thread, its store and its files."""

    def __init__(self, folder: Path, url: str | None = None, made: Bundle | None = None) -> None:
        self.folder = folder / "bundle"
        (made or bundle()).save(self.folder)
        self.settings = Settings(data=folder, db=url or "", bundle=self.folder, max_attempts=2, decode_seconds=1.0)
        self.store = Store(self.settings.db_url)
        self.store.upgrade()
        self.files = Files(folder / "pictures")
        self.models = ModelInUse(self.folder)
        self.worker = Worker(self.store, self.files, self.models, self.settings)

    def take(self, data: bytes) -> str:
        return receive(self.store, self.files, data, who="anna", origin=Origin.API).case.id

    def case(self, case_id: str) -> Case:
        with self.store.reading() as session:
            case = session.get_one(Case, case_id)
            assert case.finding is None or case.finding.bundle
            assert case.picture
            return case

    def close(self) -> None:
        self.worker._decoder.close()
        self.store.close()


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    made = Clinic(tmp_path)
    yield made
    made.close()


def _signal(decoder: Decoder, number: int) -> None:
    assert decoder.pid is not None
    os.kill(decoder.pid, number)


# The decoder


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(Limits(max_seconds=1.0, max_pixels=80_000_000), 100_000_000)
    made.decode(png(RED), SIZE, "first")
    yield made
    made.close()


def test_another_process_decodes_as_this_one_would(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(RED, size=(90, 70)))
    here, there = load(tmp_path / "a.png", size=SIZE), decoder.decode(png(RED, size=(90, 70)), SIZE, "a.png")
    assert np.array_equal(here.pixels, there.picture.pixels)
    assert here.info == there.picture.info
    assert measure_quality(here.pixels, 90, 70) == there.quality


def test_a_refusal_comes_back_as_what_it_was(decoder: Decoder) -> None:
    with pytest.raises(BrokenPicture, match=r"a\.png: it is cut off or corrupt"):
        decoder.decode(png(RED)[:60], SIZE, "a.png")


def test_a_picture_that_needs_more_memory_than_allowed_is_refused(decoder: Decoder) -> None:
    before = decoder.pid
    with pytest.raises(TooLarge, match="more memory than there is"):
        decoder.decode(png(RED, size=(7000, 7000)), SIZE, "a.png")
    assert decoder.decode(png(RED), SIZE, "b.png").picture.info.width == SIZE[0]
    assert decoder.pid == before


@pytest.mark.parametrize(("number", "told"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "took more than 1 s")])
def test_a_decoder_that_dies_or_hangs_is_told_and_another_takes_its_place(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    monkeypatch.setattr(decoding, "_GRACE", -0.9)
    decoder.decode(png(RED), SIZE, "a.png")
    _signal(decoder, number)
    with pytest.raises(DecoderLost, match=told):
        decoder.decode(png(RED), SIZE, "a.png")
    monkeypatch.undo()
    assert decoder.decode(png(GREEN), SIZE, "b.png").picture.pixels[0, 0, 1] == GREEN[1]


# The worker


def test_a_case_ends_as_the_command_line_would_score_its_picture(clinic: Clinic, tmp_path: Path) -> None:
    files = {}
    for name, colour in {"red.png": RED, "green.png": GREEN}.items():
        (tmp_path / name).write_bytes(png(colour))
        files[tmp_path / name] = clinic.take(png(colour))
    assert clinic.worker.step() == 2
    model = Model.load(clinic.folder)
    scored = findings_of(model.engine, model.judge, [(file.name, load(file, size=SIZE)) for file in files])
    for expected, case_id in zip(scored, files.values(), strict=True):
        case = clinic.case(case_id)
        found = case.finding
        assert found is not None
        assert (case.status, case.attempts, case.next_try_at) == (Status.SCORED, 1, None)
        assert found.probabilities == pytest.approx(dict(zip(bundle().classes, expected.probabilities, strict=True)))
        assert case.score == found.melanoma == pytest.approx(expected.melanoma)
        assert (found.alert, found.diagnosis, tuple(found.possible)) == (
            expected.alert,
            expected.diagnosis,
            expected.possible,
        )
        assert (found.bundle, found.bundle_digest) == ("mean colour", digest_of(clinic.folder))
        assert np.frombuffer(found.embedding or b"", "<f2").shape == (3,)
        assert (case.picture.width, case.picture.height, case.picture.format) == (*SIZE, "PNG")
    assert clinic.worker.step() == 0


def test_what_cannot_be_decoded_or_judged_is_refused_with_its_mend(tmp_path: Path) -> None:
    axes = np.full((1, 6), 0.01, np.float32)
    limits = np.array([1e6, 1e7], np.float32)
    nothing = np.zeros(0, np.float32)
    gate = Gate(np.zeros(6, np.float32), axes, limits, nothing, np.zeros(1, np.float32), np.zeros(1, np.float32))
    clinic = Clinic(tmp_path, made=bundle(gate=gate))
    torn, tiny = clinic.take(png(RED)[:60]), clinic.take(png(RED))
    clinic.worker.step()
    case = clinic.case(torn)
    assert (case.status, case.finding) == (Status.REFUSED, None)
    assert "Copy it again" in (case.problem or "")
    case = clinic.case(tiny)
    assert (case.status, case.score) == (Status.REFUSED, None)
    assert case.finding is not None
    assert case.finding.probabilities == {}
    assert "16 pixels" in (case.problem or "") == case.finding.message
    clinic.close()


def test_a_picture_that_kills_the_decoder_costs_the_others_nothing(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = clinic.worker._decoder.decode

    def killed_by_red(data: bytes, size: tuple[int, int], name: str) -> decoding.Decoded:
        if data == png(RED):
            _signal(clinic.worker._decoder, signal.SIGKILL)
        return decode(data, size, name)

    clinic.take(png(BLACK))
    clinic.worker.step()  # starts a decoder
    monkeypatch.setattr(clinic.worker._decoder, "decode", killed_by_red)
    deadly, other = clinic.take(png(RED)), clinic.take(png(GREEN))
    clinic.worker.step()
    assert clinic.case(other).status == Status.SCORED
    case = clinic.case(deadly)
    assert (case.status, case.attempts, case.problem) == (
        Status.RECEIVED,
        1,
        "The decoder died on this picture.",
    )


def test_a_picture_that_makes_the_graph_fail_costs_the_others_nothing(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, made=bundle(model=graph(WEIGHTS * 1e38)))
    failing, other = clinic.take(png(RED)), clinic.take(png(BLACK))
    clinic.worker.step()
    assert clinic.case(other).status == Status.SCORED
    assert "no number" in (clinic.case(failing).problem or "")
    clinic.close()


def test_a_file_that_is_gone_is_tried_again_and_then_shown_as_failed(clinic: Clinic) -> None:
    case_id = clinic.take(png(RED))
    clinic.files.path(clinic.case(case_id).sha256).unlink()
    clinic.worker.step()
    assert "Restore it from a backup" in (clinic.case(case_id).problem or "")
    with clinic.store.session() as session:
        case = session.get_one(Case, case_id)
        case.next_try_at = case.received_at
    clinic.worker.step()
    assert clinic.case(case_id).status == Status.FAILED


def test_a_swapped_bundle_scores_from_then_on_and_each_finding_names_its_own(clinic: Clinic) -> None:
    first = clinic.take(png(RED))
    clinic.worker.step()
    bundle(name="newer", model=graph(-WEIGHTS)).save(clinic.folder)
    second = clinic.take(png(RED, size=(21, 17)))
    clinic.worker.step()
    old, new = clinic.case(first).finding, clinic.case(second).finding
    assert old is not None
    assert new is not None
    assert (old.bundle, new.bundle) == ("mean colour", "newer")
    assert old.bundle_digest != new.bundle_digest == digest_of(clinic.folder)
    assert (old.alert, new.alert) == ("refer", "none")


def test_a_bundle_that_cannot_be_loaded_leaves_the_one_before_in_use(
    clinic: Clinic, caplog: pytest.LogCaptureFixture
) -> None:
    before = clinic.models.current()
    bundle(name="newer").save(clinic.folder)
    whole = (clinic.folder / "model.onnx").read_bytes()
    (clinic.folder / "model.onnx").write_bytes(whole[:-1])  # half copied
    for _ in range(3):
        assert clinic.models.current() is before
    assert clinic.models.problem is not None
    assert len([record for record in caplog.records if "can't be loaded" in record.message]) == 1
    (clinic.folder / "model.onnx").write_bytes(whole)
    clinic.models._next_try = 0
    assert clinic.models.current().bundle.name == "newer"
    assert clinic.models.problem is None


def test_without_any_bundle_nothing_is_attempted(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path)
    (clinic.folder / "bundle.json").unlink()
    case_id = clinic.take(png(RED))
    with pytest.raises(BundleError):
        clinic.worker.step()
    assert clinic.case(case_id).attempts == 0
    clinic.close()


def test_findings_outlive_a_database_that_goes_away_while_they_are_made(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = Clinic(tmp_path, postgres.new_database())
    case_id = clinic.take(png(RED))
    outcomes = clinic.worker._outcomes

    def then_stopped(*arguments: object) -> object:
        found = outcomes(*arguments)  # type: ignore[arg-type]
        postgres.stop()
        threading.Timer(1.5, postgres.start).start()
        return found

    monkeypatch.setattr(clinic.worker, "_outcomes", then_stopped)
    assert clinic.worker.step() == 1
    case = clinic.case(case_id)
    assert (case.status, case.attempts) == (Status.SCORED, 1)
    with clinic.store.reading() as session:
        assert [line.action for line in session.query(TrailEntry).order_by(TrailEntry.seq)] == ["received", "scored"]
    clinic.close()


def test_threads_score_what_comes_and_end_when_told(clinic: Clinic) -> None:
    before = set(multiprocessing.active_children())
    workers = Workers(clinic.store, clinic.files, clinic.models, clinic.settings)
    workers.start()
    assert workers.alive()
    case_id = clinic.take(png(RED))
    waited = threading.Event()
    for _ in range(200):
        if clinic.case(case_id).status == Status.SCORED:
            break
        waited.wait(0.05)
    workers.stop()
    assert clinic.case(case_id).status == Status.SCORED
    assert not workers.alive()
    assert set(multiprocessing.active_children()) <= before
