"""The documentation says what the code does, and its links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest
from markdown.extensions.toc import slugify, unique

import dermalert
from dermalert.cli import commands
from dermalert.intake.containers import _OTHERS
from dermalert.intake.decode import DEFAULT_LIMITS, EXTENSIONS
from dermalert.intake.lists import COLUMNS
from dermalert.intake.manifest import SCHEMA
from dermalert.intake.patience import PATIENCE
from dermalert.intake.sources import ARCHIVES, MASK_FOLDERS
from dermalert.judge.compare import ALIKE, BETTER, UNKNOWN, WORSE
from dermalert.judge.study import VALIDATION, Arm, Study, compared
from dermalert.judge.study_json import study_json
from dermalert.learn.diagnose import DIVERGED, GOOD, IMPROVING, OVERFITTING, TOO_SHORT, UNDERFITTING, UNSTABLE
from dermalert.learn.recipes import _CHOICES, AUGMENTATIONS, PREPARATIONS, RECIPES, Recipe
from dermalert.score.output import COLUMNS_AFTER, COLUMNS_BEFORE
from dermalert.taxonomy import COARSE, NAMES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def links_of(page: Path) -> Iterator[str]:
    """Targets of the links that lead to another file or section of this repository."""
    prose = _CODE.sub("", _FENCE.sub("", text_of(page)))
    yield from (target for target in _LINK.findall(prose) if not re.match(r"[a-z]+:", target))


def anchors_of(page: Path) -> set[str]:
    """The anchors that the site gives the headings of a page."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text_of(page))):
        unique(slugify(heading, "-"), found)
    return found


def names_below(group: click.Group, above: str = "dermalert") -> Iterator[str]:
    for name, command in group.commands.items():
        if not command.hidden:
            yield f"{above} {name}"
        if isinstance(command, click.Group):
            yield from names_below(command, f"{above} {name}")


def test_the_commands_page_is_what_the_commands_answer_to_help() -> None:
    made = runpy.run_path(str(DOCS / "commands.py"))["page"]()
    assert text_of(DOCS / "commands.md") == made, "stale: run `python docs/commands.py`"


@pytest.mark.parametrize("name", sorted(names_below(commands)))
def test_every_command_stands_on_the_commands_page_with_an_example(name: str) -> None:
    section = text_of(DOCS / "commands.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert f"Usage: {name} " in section
    assert re.search(rf"Examples?:\n +{name} ", section), "a command's help shows how it is typed"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_section_that_are_there(page: Path) -> None:
    for target in links_of(page):
        name, _, anchor = target.partition("#")
        aim = (page.parent / name).resolve() if name else page
        assert aim.is_file() or (aim.is_dir() and not anchor), f"{target}: there is no such file"
        assert aim.is_relative_to(ROOT), f"{target}: leads out of the repository"
        if page.is_relative_to(DOCS):
            assert aim.is_relative_to(DOCS), f"{target}: leads out of the site"
        if anchor:
            assert anchor in anchors_of(aim), f"{target}: there is no such section"


def test_every_column_of_the_manifest_is_described_with_its_type_and_in_order() -> None:
    section = text_of(DOCS / "formats.md").partition("## manifest.parquet")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\w\[\]]+) \|", section, re.MULTILINE)
    assert rows == [(field.name, str(field.type)) for field in SCHEMA]
    for word in (*NAMES, *COARSE):
        assert word in section.replace("\n", " ")


def test_every_column_of_the_scores_is_described_in_order() -> None:
    section = text_of(DOCS / "formats.md").partition("## The CSV of `score`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    assert rows == [*COLUMNS_BEFORE, "p_<class>", *COLUMNS_AFTER]


def test_the_limits_and_what_is_passed_over_are_told() -> None:
    page = text_of(DOCS / "refused.md")
    for name, value in vars(DEFAULT_LIMITS).items():
        assert f"| `{name}` | {int(value):,} |" in page
    for word in (*EXTENSIONS, *MASK_FOLDERS):
        assert f"`{word}`" in page


def test_what_people_send_by_mistake_is_told_with_its_mend() -> None:
    page = text_of(DOCS / "refused.md").replace("`", "")
    for _, _, reason, mend in _OTHERS:
        assert f"| {reason} | {mend} |" in page


def test_every_reading_of_the_curves_is_told() -> None:
    page = text_of(DOCS / "report.md")
    for verdict in (TOO_SHORT, DIVERGED, UNSTABLE, OVERFITTING, UNDERFITTING, IMPROVING, GOOD):
        assert f"| {verdict} |" in page


def blocks_of(page: Path, language: str) -> Iterator[str]:
    """The code blocks of a language, whole."""
    for fence in _FENCE.finditer(text_of(page)):
        first, _, rest = fence.group().partition("\n")
        if first.strip() == f"```{language}":
            yield rest.rpartition("\n")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_can_be_typed(page: Path) -> None:
    whole = commands.make_context("dermalert", ["--help"], resilient_parsing=True)
    for block in blocks_of(page, "sh"):
        for line in re.findall(r"^dermalert (.+)$", block, re.MULTILINE):
            name, *words = shlex.split(line.partition(">")[0], comments=True)
            assert name in commands.commands, line
            # Raises on an unknown option or a missing argument. Without its parent, a command forgets `-h` for good.
            commands.commands[name].make_context(name, words, parent=whole)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_call_that_is_shown_names_a_function_and_arguments_that_are_there(page: Path) -> None:
    for block in blocks_of(page, "python"):
        for call in ast.walk(ast.parse(block)):
            if not isinstance(call, ast.Call) or not re.fullmatch(r"dermalert\.\w+", name := ast.unparse(call.func)):
                continue
            function = getattr(dermalert, name.partition(".")[2])
            named = [word.arg for word in call.keywords]
            inspect.signature(function).bind(*call.args, **dict.fromkeys(named))  # raises where they do not fit


def test_every_field_of_a_recipe_is_described_with_its_default_and_in_order() -> None:
    section = text_of(DOCS / "formats.md").partition("## recipe.json")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.+)$", section, re.MULTILINE))
    names = [field.name for field in fields(Recipe)]
    assert [name for name in rows if name in names] == names
    plain = json.loads(Recipe(name="", network="").to_json())
    for name in names[2:]:
        default = plain[name] if isinstance(plain[name], str) and plain[name] else json.dumps(plain[name])
        assert rows[name].split("|")[0].strip().strip("`") == default, name
    for name, choices in {**_CHOICES, "prepare": PREPARATIONS}.items():
        for choice in choices:
            assert str(choice) in rows[name], name
    for name, (meaning, most) in AUGMENTATIONS.items():
        assert f"| `{name}` | {most:g} | {meaning} |" in section


def test_every_recipe_stands_in_the_tutorial() -> None:
    told = text_of(DOCS / "tutorial.md")
    for name in RECIPES:
        assert f"`{name}`" in told


def test_every_key_of_a_study_is_described() -> None:
    section = text_of(DOCS / "formats.md").partition("## study.json")[2].partition("\n## ")[0]
    lost = Arm("plain", "the baseline", "{}", state="failed", why="out of memory")
    study = Study("drawn", "plain", [lost], [VALIDATION], class_counts={"nevus": {"train": 1}})
    made = study_json(study, compared(study))
    for key in (*made, *made["data"], *made["arms"][0]):
        assert f"`{key}`" in section, key


def test_every_verdict_and_section_of_a_study_is_told() -> None:
    page = text_of(DOCS / "report.md").partition("\n## study.html")[2]
    for verdict in (BETTER, WORSE, ALIKE, UNKNOWN):
        assert verdict in page
    template = (ROOT / "src" / "dermalert" / "judge" / "study.html.j2").read_text(encoding="utf-8")
    sections = re.findall(r'ui\.section\("[\w-]+"(?: ~ [^,]+)?, "([^"]+)"', template)
    assert len(sections) >= 10
    for section in sections:
        assert f"\n### {section}\n" in page, section


def test_the_page_of_inputs_names_every_ending_and_column() -> None:
    page = text_of(DOCS / "inputs.md")
    for word in (*ARCHIVES, *COLUMNS):
        assert f"`{word}`" in page
    assert f"Each attempt at something remote has {PATIENCE.timeout_s:.0f}\nseconds" in page
