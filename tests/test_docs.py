"""The documentation says what the code does, and its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from markdown.extensions.toc import slugify, unique

from dermalert.cli import commands
from dermalert.intake.containers import _OTHERS
from dermalert.intake.decode import DEFAULT_LIMITS, EXTENSIONS
from dermalert.intake.manifest import SCHEMA
from dermalert.intake.sources import MASK_FOLDERS
from dermalert.learn.diagnose import DIVERGED, GOOD, IMPROVING, OVERFITTING, TOO_SHORT, UNDERFITTING, UNSTABLE
from dermalert.score.batch import COLUMNS_AFTER, COLUMNS_BEFORE
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
