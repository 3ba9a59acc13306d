"""What it is run with: the image, the compose file and the unit pass their linters and say what the docs promise."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermalert.clinic.settings import Settings

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> str:
    """What it says; fails where it complains."""
    ran = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8")))


def unit() -> str:
    return (ROOT / "deploy" / "dermalert.service").read_text(encoding="utf-8")


def test_the_image_passes_hadolint_and_runs_as_nobody_from_a_pinned_base() -> None:
    run(BIN / "hadolint", "--strict-labels", "Dockerfile")
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"FROM python:\d+\.\d+\.\d+-slim-\w+( AS build)?", line) for line in froms(text))
    assert len(froms(text)) == 2
    assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    assert "--require-hashes" in text


def froms(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("FROM")]


def test_all_that_the_image_copies_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_the_images_libraries_are_those_that_were_tested() -> None:
    tested, shipped = (pins(ROOT / "requirements" / name) for name in ("dev.txt", "serve.txt"))
    assert shipped.items() <= tested.items()
    assert {"fastapi", "sqlalchemy", "onnxruntime", "weasyprint", "psycopg"} <= shipped.keys()
    assert not {"tensorflow", "tensorflow-cpu", "keras"} & shipped.keys()


def pins(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.\-\[\]]+)==(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_compose_file_passes_yamllint_and_fits_together() -> None:
    rules = "{extends: default, rules: {line-length: {max: 120}}}"
    run(BIN / "yamllint", "--strict", "-d", rules, "compose.yaml")
    parts = compose()
    assert parts["services"].keys() == {"clinic", "worker", "db"}
    mounted = {each.split(":")[0] for part in parts["services"].values() for each in part["volumes"]}
    assert mounted == parts["volumes"].keys()
    for part in parts["services"].values():
        assert set(part.get("depends_on", {})) <= parts["services"].keys()
        assert all(port.startswith("127.0.0.1:") for port in part.get("ports", []))
        assert "no-new-privileges:true" in part["security_opt"]
    for name in ("clinic", "worker"):
        part = parts["services"][name]
        assert part["read_only"]
        assert part["cap_drop"] == ["ALL"]
    if shutil.which("docker-compose"):
        run("docker-compose", "--file", "compose.yaml", "config", "--quiet")


def test_no_password_stands_in_the_compose_file() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert all(":?" in each for each in re.findall(r"PASSWORD[^\n]*\$\{[^}]*\}", text))
    assert not re.search(r"PASSWORD: (?!\$\{)", text)


@pytest.mark.parametrize("file", ["compose.yaml", "Dockerfile", "deploy/dermalert.service", "docs/operate.md"])
def test_every_variable_that_is_named_is_a_setting(file: str) -> None:
    known = {f"DERMALERT_{each.name.upper()}" for each in fields(Settings)} | {"DERMALERT_DB_PASSWORD"}
    named = set(re.findall(r"DERMALERT_[A-Z_]+[A-Z]", (ROOT / file).read_text(encoding="utf-8")))
    assert named <= known


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this system")
def test_the_unit_is_understood_by_systemd_and_hardened(tmp_path: Path) -> None:
    file = tmp_path / "dermalert.service"
    file.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit()), encoding="utf-8")
    assert run("systemd-analyze", "verify", file).strip() == ""
    told = run("systemd-analyze", "security", "--offline=true", "--threshold=20", file)  # 2.0 of 10
    assert "OK" in told


def test_the_unit_starts_a_command_that_is_there() -> None:
    (command,) = re.findall(r"^ExecStart=/opt/dermalert/bin/(.+)$", unit(), re.MULTILINE)
    assert run(BIN / "dermalert", *command.split()[1:], "--help").startswith("Usage: dermalert serve")
    for service in ("clinic", "worker"):
        words = compose()["services"][service]["command"]
        assert run(BIN / "dermalert", *words, "--help").startswith(f"Usage: dermalert {words[0]}")
