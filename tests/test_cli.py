"""The command line's contract: its exit statuses, one clear line where something is wrong, results on stdout only."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest

import dermalert
from dermalert.cli import commands, main
from dermalert.drawn import draw_class_folders
from dermalert.stages import auditing
from graphs import CLASSES, bundle, paint

NAMES = sorted(commands.commands)
CONTRACT = {"audit", "train", "study", "evaluate", "score", "explain", "similar", "demo"}
WITHOUT_CHANCE = {"score", "explain", "similar"}


def run(*arguments: str | Path) -> int:
    """The exit status of a command run in this process."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return 0


def in_a_process(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    command = [sys.executable, "-m", "dermalert.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set, a bundle that scores it, a broken file and an empty folder."""
    root = tmp_path_factory.mktemp("cli")
    draw_class_folders(root / "set", per_class=3, test_per_class=2, size=(40, 40), classes=CLASSES)
    bundle().save(root / "bundle")
    paint(root / "new" / "a.png", (220, 40, 40))
    paint(root / "new" / "b.png", (40, 220, 40))
    (root / "broken.jpg").write_bytes(b"")
    (root / "empty").mkdir()
    return root


# Help and usage


def test_the_commands_of_the_contract_are_there() -> None:
    assert set(NAMES) >= CONTRACT


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_that_the_command_would_take(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    told = capsys.readouterr()
    assert told.err == ""
    examples = re.findall(rf"^ +dermalert {name}(.*)$", told.out.partition("Example:")[2], re.MULTILINE)
    assert examples
    command = commands.commands[name]
    for example in examples:
        words = example.partition(">")[0].split()
        whole = commands.make_context("dermalert", ["--help"], resilient_parsing=True)
        command.make_context(name, words, parent=whole)  # raises where the example would be refused


def test_help_without_a_command_shows_the_whole_way(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "-h"):
        assert run(option) == 0
        told = capsys.readouterr().out
        assert all(name in told for name in NAMES)
        assert "dermalert train pictures/ --recipe plain --out runs/plain" in told
        assert "decides nothing alone" in told


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"dermalert, version {dermalert.__version__}"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_says_what_it_is_for(name: str) -> None:
    for parameter in commands.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", sorted(CONTRACT - WITHOUT_CHANCE))
def test_where_chance_is_involved_there_is_a_seed_and_where_a_result_is_printed_json(name: str) -> None:
    options = {option for parameter in commands.commands[name].params for option in parameter.opts}
    assert "--seed" in options
    if name != "demo":
        assert "--json" in options


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nonsense",
        "--nonsense",
        "audit",
        "audit set",
        "audit set --out",
        "audit set --out a --seed -1",
        "audit set --out a --seed x",
        "audit set --out a --workers 0",
        "audit set --out a --column image",
        "audit set other --out a",
        "audit set --out bundle/bundle.json",
        "train set",
        "train set --out r --epochs 0",
        "train set --out r --epochs many",
        "train set --out r --resamples 5",
        "train set --out r --recipe plain --from r.json",
        "study set",
        "study set --out s --repeats 0",
        "evaluate bundle",
        "evaluate bundle set",
        "score",
        "score new --bundle bundle --engine",
        "score new --bundle bundle --out new",
        "score new --bundle bundle --engine ray",
        "score new --bundle bundle --engine ray --format csv --out a.csv",
        "score new --bundle bundle --address auto --out a.csv",
        "score new --bundle bundle --worker-gpus 0 --engine ray --out a",
        "explain new",
        "explain --out maps",
        "similar new/a.png",
        "similar new/a.png --among new --k 0",
        "similar new/a.png new/b.png --among new",
        "draw",
        "draw d --per-class 0",
        "demo here",
    ],
)
def test_wrong_usage_is_status_2_with_the_usage_on_stderr(
    home: Path, arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    before = sorted(home.rglob("*"))
    assert run(*arguments.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.match(r"Usage: |Error: Option ", told.err)
    assert sorted(home.rglob("*")) == before


# What a user can get wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("audit none --out out", "none: there is no such file or folder"),
        ("audit empty --out out", "empty: no pictures below it"),
        ("audit broken.jpg --out out", "is a usable picture"),
        ("audit set --against none --out out", "none: there is no such file or folder"),
        ("audit set --table none.csv --out out", "none.csv: "),
        ("audit set --column colour=x --table t.csv --out out", "'colour' is not one of image, diagnosis"),
        ("audit set --out broken.jpg/out", "Not a directory"),
        ("train set --recipe none --out out", "There is no recipe 'none'"),
        ("train none --out out", "none: there is no such file or folder"),
        ("train none.parquet --out out", "there is no such manifest"),
        ("train set --from none.json --out out", "none.json: "),
        ("recipes none", "There is no recipe 'none'"),
        ("evaluate none set --out out", "A bundle is the folder `bundle/` of a training run"),
        ("evaluate bundle none --out out", "none: there is no such file or folder"),
        ("evaluate bundle new --out out", "no picture there has a diagnosis"),
        ("score none --bundle bundle", "none: there is no such file or folder"),
        ("score new --bundle set", "A bundle is the folder `bundle/` of a training run"),
        ("score new --bundle none", "A bundle is the folder `bundle/` of a training run"),
        ("score empty --bundle bundle", "empty: no pictures there"),
        ("score broken.jpg --bundle bundle --out out.csv", "Not one of 1 files could be scored"),
        ("score none.parquet --bundle bundle", "none.parquet: there is no such file or folder"),
        ("score new --bundle bundle --out none/out.csv", "No such file or directory"),
        ("score new --bundle bundle --out new/a.png", "no picture is ever replaced"),
        ("draw set", "already holds Train and Test"),
    ],
)
def test_what_a_user_can_get_wrong_is_status_1_with_one_clear_line(
    home: Path, arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    (home / "t.csv").write_text("image,dx\n")
    assert run(*arguments.split()) == 1
    told = capfd.readouterr()
    assert [line for line in told.err.splitlines() if line.startswith("dermalert: ")] == [told.err.splitlines()[-1]]
    assert message in told.err.splitlines()[-1]
    assert "Traceback" not in told.err
    assert told.out.splitlines()[1:] == []  # at most the head of a table that has no rows


@pytest.mark.parametrize(
    "name", ["line\nbreak", "turned\u202egpj", "colour\x1b[31m", "not utf-8 \udcff", "\u2028"], ids=ascii
)
def test_a_hostile_name_stays_on_its_line(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["audit", tmp_path / name, "--out", tmp_path / "o"],
        ["score", name, "--bundle", tmp_path / name],
    ):
        assert run(*arguments) == 1
        told = capsys.readouterr()
        assert len(told.err.splitlines()) == 1
        assert not {"\x1b", "\u202e", "\u2028", "\udcff"} & set(told.err)


def test_an_error_of_the_disk_is_one_line_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "audit.json")

    monkeypatch.setattr(auditing, "run_audit", full)
    assert run("audit", home / "set", "--out", tmp_path) == 1
    assert capsys.readouterr().err == "dermalert: audit.json: No space left on device\n"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, click.Abort])
def test_ctrl_c_is_one_line(
    home: Path,
    stop: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr(auditing, "run_audit", stopped)
    assert run("audit", home / "set", "--out", tmp_path) == 1
    assert capsys.readouterr().err.strip() == "dermalert: Stopped."


def test_a_fault_of_ours_is_not_dressed_up_as_the_users(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(auditing, "run_audit", broken)
    with pytest.raises(ZeroDivisionError):
        run("audit", home / "set", "--out", tmp_path)


# Results


def test_an_audit_tells_its_findings_on_stdout_and_its_progress_on_stderr(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", home / "set", "--out", tmp_path / "a") == 0
    told = capfd.readouterr()
    assert "groups of byte-identical files" in told.out
    assert told.out.splitlines()[-1] == f"Read {tmp_path / 'a' / 'audit.html'}"
    assert "examine set" in told.err
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["audit.html", "audit.json", "manifest.parquet"]


def test_an_audits_json_is_all_that_stands_on_stdout(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "SUSPECT_UP_TO", 3)  # what it says of that belongs on stderr
    assert run("audit", home / "set", "--out", tmp_path, "--json") == 0
    told = capfd.readouterr()
    assert json.loads(told.out) == json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert "not searched" in told.err


def test_any_seed_will_do(home: Path, tmp_path: Path) -> None:
    assert run("audit", home / "set", "--out", tmp_path, "--seed", str(10**12)) == 0


def test_the_page_says_how_to_have_it_again(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["audit", str(home / "set"), "--out", str(tmp_path / "a b"), "--seed", "7"]
    monkeypatch.setattr(sys, "argv", ["dermalert", *arguments])
    assert run(*arguments) == 0
    page = (tmp_path / "a b" / "audit.html").read_text(encoding="utf-8")
    assert f"dermalert audit {home / 'set'} --out &#39;{tmp_path / 'a b'}&#39; --seed 7" in page


def test_an_evaluations_json_is_all_that_stands_on_stdout(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--out", tmp_path, "--resamples", "100")
    assert run("evaluate", home / "bundle", home / "set", *options, "--json") == 0
    told = capfd.readouterr()
    assert json.loads(told.out) == json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert "intervals" in told.err
    assert run("evaluate", home / "bundle", home / "set", *options) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("as given: ")
    assert lines[-1] == f"Read {tmp_path / 'report.html'}"


def test_columns_of_other_names_are_mapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "set" / "a.png", (1, 2, 3))
    (tmp_path / "set" / "t.csv").write_text("bild,befund=x\na,nv\n")
    arguments = ("--table", tmp_path / "set" / "t.csv", "--column", "image=bild", "--column", "diagnosis=befund=x")
    assert run("audit", tmp_path / "set", "--out", tmp_path / "out", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"]["kind"] == "table"


def test_drawing_says_how_many_pictures_lie_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("draw", tmp_path / "d", "--per-class", "1", "--seed", "3") == 0
    drawn = len(list((tmp_path / "d").rglob("*.jpg")))
    assert capsys.readouterr().out == f"Drew {drawn - 3} pictures in {tmp_path / 'd'}\n"


# Scoring


def test_scoring_to_stdout_prints_the_table_there_and_all_else_on_stderr(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("score", home / "new", home / "broken.jpg", "--bundle", home / "bundle") == 0
    told = capfd.readouterr()
    table = list(csv.DictReader(io.StringIO(told.out)))
    assert [row["status"] for row in table] == ["scored", "scored", "error"]
    assert told.err.splitlines()[-1] == "2 scored, 1 to refer; 0 rejected, 1 could not be read"


def test_scoring_to_a_file_prints_nothing_on_stdout(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("score", home / "new", "--bundle", home / "bundle", "--out", tmp_path / "a.csv") == 0
    told = capfd.readouterr()
    assert told.out == ""
    counted = "2 scored, 1 to refer; 0 rejected, 0 could not be read"
    assert told.err.splitlines()[-1] == f"{counted}; see {tmp_path / 'a.csv'}"
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_scoring_as_json_prints_an_object_a_line(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("score", home / "new", home / "broken.jpg", "--bundle", home / "bundle", "--json") == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [one["alert"] for one in found] == ["refer", "none", None]


HEAVY = ("keras", "tensorflow", "torch", "jax", "tf2onnx", "onnx", "sklearn", "scipy", "pandas", "matplotlib")
LOADED = """
    import sys
    from dermalert.cli import main

    main(sys.argv[1:])
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_scoring_loads_no_training_framework_and_nothing_else_that_is_slow(home: Path) -> None:
    arguments = ["score", str(home / "new"), "--bundle", str(home / "bundle")]
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOADED), *arguments], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stderr.splitlines()[-1].split())
    assert {"onnxruntime", "PIL"} <= loaded
    assert not loaded & set(HEAVY)


def test_help_loads_hardly_anything() -> None:
    code = "import sys, dermalert.cli\nprint(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not set(ran.stdout.split()) & {*HEAVY, "onnxruntime", "pyarrow", "numpy", "PIL"}


def test_the_command_itself_gives_these_statuses(home: Path) -> None:
    for arguments, status in (
        (("score", "new", "--bundle", "bundle", "--out", "fine.csv"), 0),
        (("score", "new", "--bundle", "none"), 1),
        (("score", "--out", "fine.csv"), 2),
    ):
        ran = in_a_process(*arguments, cwd=home)
        assert ran.returncode == status
        assert ran.stdout == ""
        assert "Traceback" not in ran.stderr
    assert (home / "fine.csv").is_file()


def test_a_table_on_stdout_is_utf8_whatever_the_terminal_speaks(home: Path, tmp_path: Path) -> None:
    paint(tmp_path / "日本.png", (1, 2, 3))
    command = [sys.executable, "-m", "dermalert.cli", "score", str(tmp_path), "--bundle", str(home / "bundle")]
    ran = subprocess.run(command, capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert ran.returncode == 0
    assert "日本.png" in ran.stdout.decode("utf-8")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_ctrl_c_while_scoring_stops_with_one_line_and_leaves_no_half_table(home: Path, tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import signal, sys
        from dermalert.score import batch

        def interrupted(*_):
            signal.raise_signal(signal.SIGINT)  # to this thread: sent to the process, a decoding thread may take it

        batch.findings_of = interrupted
        from dermalert.cli import main
        main(sys.argv[1:])
    """)
    arguments = ["score", str(home / "new"), "--bundle", str(home / "bundle"), "--out", str(tmp_path / "a.csv")]
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "dermalert: Stopped."
    assert list(tmp_path.iterdir()) == []
