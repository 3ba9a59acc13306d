"""Patterns for many names, as a shell would expand them, for those that quote them or name what no shell can see.

Comes in: `shards/{00000..00009}.tar`, `{a,b}/*.jpg`, `clinic/**/*.png`. Goes out: plain names, one after another.
It looks into folders only through the function that it is given, so that a bucket is searched like a disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from dermalert.errors import RefusedFile
from dermalert.intake.sources import is_passed_over

Lister = Callable[[str], tuple[list[str], list[str]]]  # a folder -> the sorted names of its files and of its folders

_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MAGIC = re.compile(r"[*?[]")


def in_braces(pattern: str) -> Iterator[str]:
    """What braces stand for, the first of them slowest: numbers (as wide as they are written) and words.

    >>> list(in_braces("{08..10}-{a,b}.tar"))[:3]
    ['08-a.tar', '08-b.tar', '09-a.tar']
    """
    found = min(filter(None, (_RANGE.search(pattern), _CHOICE.search(pattern))), key=re.Match.start, default=None)
    if found is None:
        yield pattern
        return
    for word in _numbers(*found.groups()) if found.re is _RANGE else found[1].split(","):
        yield from in_braces(f"{pattern[: found.start()]}{word}{pattern[found.end() :]}")


def _numbers(first: str, last: str) -> Iterator[str]:
    padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return (f"{number:0{width}d}" for number in range(int(first), int(last) + step, step))


def has_braces(pattern: str) -> bool:
    """Whether `in_braces` would change it."""
    return bool(_RANGE.search(pattern) or _CHOICE.search(pattern))


def has_wildcards(pattern: str) -> bool:
    """Whether it holds one of `*`, `?` and `[`."""
    return bool(_MAGIC.search(pattern))


def matching(pattern: str, listed: Lister) -> Iterator[tuple[str, bool] | RefusedFile]:
    """Every file or folder that fits, each once, with whether it is a folder; nothing below a folder that fits.

    `**` stands for any number of folders, or none. A wildcard fits no hidden name and no folder of masks; neither is
    searched unless it is named. What `listed` raises of a folder is passed on in its place.
    """
    before, parts = _plain_start(pattern.rstrip("/").split("/"))
    # With each folder, all parts that the next name may have to fit: so nothing is found twice.
    pending = [(before, frozenset({0}))]
    while pending:
        folder, reached = pending.pop()
        if len(parts) in reached:
            yield folder, True
            continue
        try:
            files, folders = listed(folder)
        except RefusedFile as refusal:
            yield refusal
            continue
        for name in files:
            if len(parts) in _step(name, parts, reached, is_folder=False):
                yield _joined(folder, name), False
        for name in reversed(folders):
            if after := _step(name, parts, reached, is_folder=True):
                pending.append((_joined(folder, name), after))


def _plain_start(parts: list[str]) -> tuple[str, list[str]]:
    """The folder in which the search begins, and the parts from the first wildcard on."""
    first = next(index for index, part in enumerate(parts) if has_wildcards(part))
    folder = "/".join(parts[:first])
    return folder if folder or first == 0 else "/", parts[first:]


def _joined(folder: str, name: str) -> str:
    return f"{folder}{name}" if not folder or folder.endswith("/") else f"{folder}/{name}"


def _step(name: str, parts: list[str], reached: frozenset[int], *, is_folder: bool) -> frozenset[int]:
    """The parts that are reached behind `name`; all of them are where it fits to the end."""
    hidden = is_passed_over(name) if is_folder else name.startswith(".")
    after = set()
    for at in _with_empty_stars(parts, reached):
        if parts[at] == "**" and not hidden:
            after.add(len(parts) if at + 1 == len(parts) else at)
        elif _fits(name, parts[at], hidden=hidden):
            after.add(at + 1)
    return frozenset(after)


def _fits(name: str, part: str, *, hidden: bool) -> bool:
    if has_wildcards(part):
        return fnmatchcase(name, part) and (not hidden or part.startswith("."))
    return name == part


def _with_empty_stars(parts: list[str], reached: frozenset[int]) -> set[int]:
    """`**` may stand for no folder at all."""
    opened = set(reached)
    for at in range(len(parts) - 1):
        if at in opened and parts[at] == "**":
            opened.add(at + 1)
    return opened
