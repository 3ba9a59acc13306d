"""What any page promises: nothing untrusted runs, nothing is fetched, everything can be read aloud."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from dermalert import page
from dermalert.errors import DataError
from dermalert.page.page import _environment, count, decimal, percent
from reading import read

HOSTILE = '"><script>alert(1)</script>\u202egpj.exe\n<img src=https://example.org/x>'
MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class _Bin:
    promised: float
    happened: float
    count: int


def _macro(call: str, **values: object) -> str:
    source = '{% import "macros.html.j2" as ui %}' + call
    return _environment().from_string(source).render(**values)


def _charts() -> dict[str, Markup]:
    steps = np.linspace(0, 1, 50)
    return {
        "curves": page.curves([2.0, 1.0, 0.5], [2.0, float("nan"), 1.1], quantity="loss", best_epoch=3),
        "roc": page.roc({HOSTILE: (steps, steps**0.5)}, question=HOSTILE, operating=(0.4, 0.9, HOSTILE)),
        "pr": page.precision_recall({"test": (steps, 1 - steps / 2)}, question="melanoma", prevalence=0.13),
        "reliability": page.reliability({HOSTILE: [_Bin(0.4, 0.5, 12)]}, question="melanoma"),
        "histograms": page.histograms({"Train": steps, "Test": steps**2}, quantity="brightness"),
        "classes": page.class_distribution({HOSTILE: {"train": 30, "test": 3}, "nevus": {"train": 0, "test": 0}}),
    }


def test_a_hostile_name_is_shown_and_never_run() -> None:
    html = page.render("base.html.j2", title=HOSTILE, command=HOSTILE, made=MADE)
    assert "<script" not in html
    assert "<img" not in html
    assert "\u202e" not in html
    assert "\\u202egpj.exe\\n" in html
    assert read(html).problems == []


def test_a_hostile_name_cannot_leave_a_chart_a_table_or_an_alternative_text() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    cells = _macro("{{ ui.table(name, [name], [[name]]) }}", name=HOSTILE)
    row = _macro("{{ ui.pictures([one]) }}", one=page.picture(pixels, alt=HOSTILE, caption=HOSTILE, note=HOSTILE))
    for html in (cells, row, *_charts().values()):
        assert "<script" not in html
        assert "src=https" not in html or "&lt;img src=https" in html
        assert "\u202e" not in html


def test_a_name_that_is_not_unicode_can_still_be_written(tmp_path: Path) -> None:
    html = page.render("base.html.j2", title="broken \udcff name", command="x", made=MADE)
    page.write(tmp_path / "page.html", html)
    assert "broken \\udcff name" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_page_asks_the_network_for_nothing_and_says_so_to_the_browser() -> None:
    html = page.render("base.html.j2", title="t", command="c", made=MADE)
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_every_chart_has_a_title_a_description_and_no_colour_of_its_own() -> None:
    for chart in _charts().values():
        assert chart.startswith("<svg")
        assert "<title>" in chart
        assert "<desc>" in chart
        assert "#" not in chart.replace("&#34;", "").replace("&#39;", "")
        assert "nan" not in chart.lower().replace("validation loss nan", "")


def test_the_same_numbers_give_the_same_chart() -> None:
    assert _charts() == _charts()


def test_a_chart_of_many_points_stays_small() -> None:
    steps = np.linspace(0, 1, 100_000)
    assert len(page.roc({"test": (steps, steps)}, question="melanoma")) < 12_000


def test_a_curve_breaks_where_a_value_is_missing() -> None:
    whole = page.curves([3.0, 2.0, 1.0, 0.5], [3.0, 2.0, 1.0, 0.5], quantity="loss")
    broken = page.curves([3.0, 2.0, 1.0, 0.5], [3.0, float("nan"), 1.0, 0.5], quantity="loss")
    assert whole.count('class="line s2"') == 1
    assert broken.count('class="line s2"') == 1
    assert broken.count('class="s2 dot"') == 1


@pytest.mark.parametrize("epochs", [1, 2, 3, 100])
def test_curves_of_any_length_can_be_drawn(epochs: int) -> None:
    chart = page.curves([0.5] * epochs, [0.5] * epochs, quantity="accuracy", best_epoch=1, fraction=True)
    assert "best: epoch 1" in chart


def test_curves_without_epochs_are_refused() -> None:
    with pytest.raises(DataError, match="0 and 1"):
        page.curves([0.1], [], quantity="loss")


def test_histograms_of_one_value_and_of_none_can_be_drawn() -> None:
    assert "median 3" in page.histograms({"Train": [3.0, 3.0]}, quantity="sharpness")
    assert "<svg" in page.histograms({"Train": [float("nan")]}, quantity="sharpness")


@settings(deadline=None, max_examples=60)
@given(arrays(np.float64, st.integers(0, 40), elements=st.floats(width=32)))
def test_histograms_of_any_numbers_can_be_drawn(values: NDArray[np.float64]) -> None:
    chart = page.histograms({"Train": values, "Test": values + 1e-9}, quantity="sharpness")
    assert read(chart).problems == []
    assert "nan" not in chart


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1e30), st.floats(0, 1e30) | st.just(float("nan"))), min_size=1, max_size=60))
def test_curves_of_any_losses_can_be_drawn(losses: list[tuple[float, float]]) -> None:
    training, validation = zip(*losses, strict=True)
    chart = page.curves(training, validation, quantity="loss", best_epoch=len(losses))
    assert read(chart).problems == []
    assert 'd="Mnan' not in chart
    assert chart.count("<text") < 25


def test_a_thumbnail_keeps_its_proportions_and_is_never_enlarged() -> None:
    wide = _opened(page.thumbnail(np.zeros((100, 200, 3), np.uint8), edge=96))
    tiny = _opened(page.thumbnail(np.zeros((5, 7, 3), np.uint8), edge=96))
    assert wide.size == (96, 48)
    assert tiny.size == (7, 5)
    assert not wide.getexif()


def test_a_square_picture_is_cut_from_the_middle() -> None:
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:, 40:60] = 255
    image = _opened(page.picture(pixels, alt="a stripe", edge=60, square=True).source)
    assert image.size == (60, 60)
    assert image.getpixel((30, 30)) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 4), (4, 4, 4)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="uint8"):
        page.thumbnail(np.zeros(shape, np.uint8))


def test_a_share_short_of_all_is_never_shown_as_all() -> None:
    assert percent(0.997) == "99.7\N{NO-BREAK SPACE}%"
    assert percent(0.004) == "0.4\N{NO-BREAK SPACE}%"
    assert decimal(0.998) == "0.998"
    assert decimal(0.002) == "0.002"
    assert decimal(1.0) == "1.00"
    assert percent(1.0) == "100\N{NO-BREAK SPACE}%"
    assert percent(float("nan")) == decimal(float("nan")) == "cannot be computed"
    assert count(12345) == "12\N{NARROW NO-BREAK SPACE}345"


def test_groups_to_compare_are_framed_under_their_heading_and_name_what_is_left_out() -> None:
    one = page.picture(np.zeros((4, 4, 3), np.uint8), alt="a lesion", caption="melanoma", name=HOSTILE)
    groups = [{"heading": HOSTILE, "pictures": [one, one], "more": 3}]
    html = _macro("{{ ui.groups(groups) }}", groups=groups)
    assert read(html).problems == []
    assert "<script" not in html
    assert html.count("<img") == 2
    assert "and 3 more" in html


def test_a_confusion_matrix_is_a_table_that_can_be_read_aloud() -> None:
    html = _macro(
        "{{ ui.confusion('Test', ['melanoma', 'nevus'], [[3, 1], [0, 0]]) }}",
    )
    reading = read(html)
    assert reading.problems == []
    assert html.count('scope="row"') == 2
    assert "75\N{NO-BREAK SPACE}%" in html


READ = [  # text on its ground: 4.5 to 1 at least (WCAG 2.2, 1.4.3)
    *[(ink, ground) for ink in ("ink", "muted", "accent") for ground in ("ground", "paper", "accent-soft", "track")],
    *[("ink", "warn-soft"), ("warn", "warn-soft"), ("band-ink", "band"), ("band-muted", "band")],
]
SEEN = [("s1", "paper"), ("s2", "paper"), ("s3", "paper"), ("s4", "paper")]  # lines: 3 to 1 (1.4.11)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_from_their_ground(theme: str) -> None:
    colours = _palette()[theme]
    for ink, ground in READ:
        assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for line, ground in SEEN:
        assert _contrast(colours[line], colours[ground]) >= 3, (line, ground)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("heat", ["heat", "heat-wrong"])
def test_numbers_in_a_confusion_matrix_stand_out_from_the_fullest_cell(theme: str, heat: str) -> None:
    colours = _palette()[theme]
    share = 0.07 + float(colours["most"])
    tint = [int(part) for part in colours[heat].split(",")]
    mixed = [share * a + (1 - share) * b for a, b in zip(tint, _rgb(colours["paper"]), strict=True)]
    assert _contrast(colours["ink"], "#" + "".join(f"{round(part):02x}" for part in mixed)) >= 4.5


def _palette() -> dict[str, dict[str, str]]:
    css = (Path(page.__file__).parent / "page.css").read_text(encoding="utf-8")
    roots = [dict(re.findall(r"--([\w-]+): ([^;]+);", body)) for body in re.findall(r":root \{([^}]*)\}", css)]
    return {"light": roots[0], "dark": roots[0] | roots[1]}


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = [part / 255 for part in _rgb(colour)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _opened(source: str) -> Image.Image:
    head, body = source.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))
