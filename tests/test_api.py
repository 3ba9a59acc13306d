"""The public names: what scripts and notebooks may count on."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import dermalert
from dermalert.cli import commands
from dermalert.drawn import draw_class_folders
from dermalert.errors import BundleError, DataError, RunError
from dermalert.learn.recipes import recipe_named

FUNCTIONS = ("audit", "evaluate", "explain", "load_manifest", "recipe_named", "score", "similar", "study", "train")
# What the command line calls otherwise than Python.
NAMES = {"run": "out", "name": "recipe", "file": "recipe", "names": "recipes"}
HEAVY = ("numpy", "pyarrow", "PIL", "onnxruntime", "sklearn", "scipy", "tensorflow", "keras")


def said_by(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert said_by(f"import sys, dermalert; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_scoring_loads_no_training_framework() -> None:
    program = (
        "import sys, dermalert; dermalert.score, dermalert.Bundle; import dermalert.score.batch;"
        "print([name for name in ('tensorflow', 'keras', 'dermalert.learn') if name in sys.modules])"
    )
    assert said_by(program) == "[]"


def test_every_public_name_is_there_and_told_of() -> None:
    assert set(dermalert.__all__) == {*FUNCTIONS, "Bundle", "Recipe", "__version__"}
    for name in dermalert.__all__:
        assert name in dir(dermalert)
        assert getattr(dermalert, name) is not None
    for name in FUNCTIONS:
        assert inspect.getdoc(getattr(dermalert, name)), name


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dermalert' has no attribute 'diagnose'"):
        dermalert.diagnose  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "before", ["pass", "import dermalert.score", "import dermalert.score.batch", "from dermalert.score import engine"]
)
def test_score_is_the_function_whatever_was_imported_before(before: str) -> None:
    shown = said_by(f"{before}; import dermalert; print(dermalert.score.__module__, callable(dermalert.score))")
    assert shown == "dermalert.api True"


@pytest.mark.parametrize("name", ["audit", "train", "study", "evaluate", "explain", "similar"])
def test_a_function_takes_what_the_command_of_its_name_takes(name: str) -> None:
    of_the_command = {NAMES.get(str(p.name), str(p.name)) for p in commands.commands[name].params}
    of_the_function = set(inspect.signature(getattr(dermalert, name)).parameters)
    assert of_the_command - {"as_json"} == of_the_function


def test_study_trains_what_the_command_trains_unless_told_otherwise() -> None:
    whole = commands.make_context("dermalert", ["--help"], resilient_parsing=True)
    of_the_command = commands.commands["study"].make_context("study", ["data", "--out", "out"], parent=whole).params
    of_the_function = inspect.signature(dermalert.study).parameters
    assert ",".join(of_the_function["recipes"].default) == of_the_command["names"]
    for name in ("repeats", "epochs", "seed", "resamples", "show_leak", "resume"):
        assert of_the_function[name].default == of_the_command[name], name


def test_a_missing_folder_is_a_data_error(tmp_path: Path) -> None:
    for function in (dermalert.load_manifest, dermalert.audit):
        with pytest.raises(DataError, match="no such file or folder"):
            function(tmp_path / "nowhere")


def test_a_missing_bundle_is_told_of_before_the_first_finding(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        dermalert.score([], tmp_path / "nowhere")


def test_an_audit_writes_only_where_it_is_told_to(tmp_path: Path) -> None:
    data, out = tmp_path / "drawn", tmp_path / "audit"
    drawn = draw_class_folders(data, per_class=4, test_per_class=0, size=(64, 64), classes=("melanoma", "nevus"))
    before = sorted(tmp_path.rglob("*"))
    report = dermalert.audit(data)
    assert sorted(tmp_path.rglob("*")) == before
    assert len(report.manifest) == drawn.pictures
    assert len(report.refused) == len(drawn.planted.refused)
    written = dermalert.audit(str(data), out=out, seed=7)
    assert sorted(file.name for file in out.iterdir()) == ["audit.html", "audit.json", "manifest.parquet"]
    assert f"dermalert.audit(&#39;{data}&#39;, out=&#39;{out}&#39;, seed=7)" in (out / "audit.html").read_text("utf-8")
    for manifest in (
        written.manifest,
        dermalert.load_manifest(data),
        dermalert.load_manifest(out / "manifest.parquet"),
    ):
        assert manifest.table.equals(report.manifest.table)


@dataclass(frozen=True)
class Call:
    """What a stage was called with."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The calls of the stages `train` and `study`, which then do nothing."""
    made: list[Call] = []

    def note(*arguments: Any, **options: Any) -> None:
        made.append(Call(arguments, options))

    monkeypatch.setattr("dermalert.stages.training.run_train", note)
    monkeypatch.setattr("dermalert.stages.study.run_study", note)
    return made


def test_a_recipe_is_given_by_name_as_a_value_or_as_a_file(calls: list[Call], tmp_path: Path) -> None:
    mine = replace(dermalert.recipe_named("augmented"), dropout=0.3)
    file = tmp_path / "mine.json"
    file.write_text(mine.to_json(), "utf-8")
    for given in ("augmented", mine, file, str(file)):
        dermalert.train("data", out="run", recipe=given)
    dermalert.train("data", out="run", recipe=file, seed=5, weights="none", log="tensorboard")
    asked = [call.arguments[1] for call in calls]
    assert asked == [dermalert.recipe_named("augmented"), mine, mine, mine, replace(mine, seed=5)]
    assert [list(call.options["log"]) for call in calls] == [[], [], [], [], ["tensorboard"]]
    assert f"recipe={str(file)!r}, weights='none'" in calls[-1].options["command"]


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"\xff", "utf-8"), (b"{}", "Not a recipe")])
def test_a_file_that_holds_no_recipe_is_a_run_error(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RunError, match=said):
        dermalert.train("data", out=tmp_path / "run", recipe=file)


def test_a_study_takes_one_or_several_recipes_and_sets(calls: list[Call]) -> None:
    dermalert.study("data", out="out", recipes="balancing", pool="other")
    dermalert.study("data", out="out", recipes=["focal"], pool=[Path("a"), "b"], repeats=2, show_leak=True)
    (one, *_), (two, *_) = (call.arguments for call in calls)
    assert one.recipes == ("plain", "balanced", "class-weights", "balanced-sampling", "focal", "logit-adjusted")
    assert one.pool == (Path("other"),)
    assert (two.recipes, two.pool, two.repeats) == (("plain", "focal"), (Path("a"), Path("b")), 2)
    assert "dermalert.study('data', out='out', recipes=['focal'], pool=['a', 'b']" in calls[1].options["command"]
    with pytest.raises(RunError, match="There is no recipe 'nothing'"):
        dermalert.study("data", out="out", recipes="nothing")


@pytest.mark.slow
def test_the_whole_way_in_a_script(tmp_path: Path) -> None:
    data, run = tmp_path / "drawn", tmp_path / "run"
    draw_class_folders(data, per_class=12, test_per_class=3, size=(48, 48), classes=("melanoma", "nevus"), faults=False)
    recipe = replace(recipe_named("plain"), size=(32, 32), precision="float32", seed=3)
    figures = dermalert.train(data, out=run, recipe=recipe, epochs=1, resamples=100)
    assert list(figures) == ["validation", "test, raw", "test, clean"]
    assert json.loads((run / "metrics.json").read_text("utf-8"))["seed"] == 3

    own = dermalert.evaluate(run / "bundle", run / "manifest.parquet", out=tmp_path / "evaluation", resamples=100)
    assert own["as given"].pictures == 6

    bundle = dermalert.Bundle.load(run / "bundle")
    one = next(data.rglob("*.jpg"))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    findings = list(dermalert.score([one, data / "Test", tmp_path / "broken.jpg"], bundle))
    assert [finding.status for finding in findings] == ["scored"] * 7 + ["error"]
    with pytest.raises(DataError, match="no such file"):
        dermalert.score([one, tmp_path / "gone.jpg"], bundle)
    assert sum(findings[0].probabilities) == pytest.approx(1)
    assert list(dermalert.score(str(one), run / "bundle")) == findings[:1]
