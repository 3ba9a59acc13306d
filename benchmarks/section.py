"""What a benchmark leaves in the documentation: its section of a page, between markers that only it writes.

Comes in: a table and the words around it. Goes out: the page with that section replaced, or added at its end; all else
on the page stays as people wrote it. Measures nothing.

    <!-- section: score -->
    ...
    <!-- end of section: score -->
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def write_section(name: str, text: str, *, page: Path = DOCS / "performance.md") -> None:
    """Puts `text`, Markdown, in the place of the section `name` of the page."""
    start, end = f"<!-- section: {name} -->", f"<!-- end of section: {name} -->"
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    section = f"{start}\n\n{text.strip()}\n\n{end}"
    found = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    after = found.sub(lambda _: section, before) if found.search(before) else f"{before.rstrip()}\n\n{section}\n"
    page.write_text(after.lstrip("\n"), encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; every column but the first is of figures, and lies to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def measured_on(*distributions: str) -> str:
    """One line: the machine without its name, the interpreter, and the versions of the libraries that were timed."""
    libraries = ", ".join(f"{name} {version(name)}" for name in distributions)
    where = f"{cpu_count()} cores of {processor()}, {platform.system()}"
    return f"Measured on {where}, Python {platform.python_version()}, {libraries}."


def processor() -> str:
    """The processor's name and the vector instructions that matter here, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    told = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in told.items()}
    has = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if name in facts.get("flags", "").split()]
    name = facts.get("model name", platform.machine())
    return f"{name} ({', '.join(has)})" if has else name
