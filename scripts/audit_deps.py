"""Whether what `requirements/` pins has known vulnerabilities, by pip-audit; and loudly, where that cannot be known.

pip-audit asks the index for each package, and counts one that the index does not know as skipped, not as a failure: on
a mirror without that service it finds "no known vulnerabilities" in nothing. So a skipped package counts here as not
checked, and a first one is asked for alone, before all others are.

    python scripts/audit_deps.py requirements/serve.txt
    python scripts/audit_deps.py requirements/serve.txt --or-say-so   # in CI: not checked is no failure, but is said

Exit status: 0 all checked and none known, 1 at least one known, 3 not checked.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_LINE = "!" * 100
_NOT_CHECKED = f"""{_LINE}
NOT CHECKED FOR KNOWN VULNERABILITIES: {{count}} of {{of}} packages of {{file}}.
The service that knows them cannot be reached from here, or does not know these packages.
Run `make audit-deps` where https://pypi.org answers, before this is used.
{_LINE}"""


def pins(requirements: Path) -> list[str]:
    """ "name==version" of each package that the file pins."""
    return sorted({f"{name}=={version}" for name, version in _PIN.findall(requirements.read_text(encoding="utf-8"))})


def asked(packages: list[str]) -> list[dict[str, Any]]:
    """What pip-audit says of each; nothing where it broke off."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(packages) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--requirement", str(file)]
        command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (of our own making)
    try:
        told: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return []
    return told


def main() -> int:
    """Checks, prints, and tells by its exit status."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("requirements", type=Path)
    options.add_argument("--or-say-so", action="store_true", help="0 instead of 3 where it could not be checked")
    given = options.parse_args()
    packages = pins(given.requirements)
    told = asked(packages[:1])
    if told and "skip_reason" not in told[0]:
        told = asked(packages)
    checked = [each for each in told if "skip_reason" not in each]
    known = [(each, flaw) for each in checked for flaw in each["vulns"]]
    for each, flaw in known:
        mend = ", ".join(flaw["fix_versions"]) or "no release yet"
        print(f"{each['name']} {each['version']}: {flaw['id']}, mended in {mend}")
    if known:
        print(f"{len(known)} known vulnerabilities in {given.requirements}. Raise the pins, or document why not.")
        return 1
    if len(checked) < len(packages):
        print(_NOT_CHECKED.format(count=len(packages) - len(checked), of=len(packages), file=given.requirements))
        return 0 if given.or_say_so else 3
    print(f"{len(packages)} packages of {given.requirements}: none has a known vulnerability")
    return 0


if __name__ == "__main__":
    sys.exit(main())
