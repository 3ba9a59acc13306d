"""The look of every HTML page: one self-contained file, readable on a phone, in the dark and on paper.

Comes in: values, pixels, curves. Goes out: HTML, inline SVG, data URIs, with every untrusted text escaped.
It reads no files but its own templates, and never decides what a figure means.
"""

from __future__ import annotations

from dermalert.page.comparing import Frame, Whisker, forest, panel
from dermalert.page.figures import (
    Legend,
    class_distribution,
    curves,
    histograms,
    precision_recall,
    reliability,
    roc,
)
from dermalert.page.levels import levels
from dermalert.page.page import Section, fragment, render, write
from dermalert.page.thumbnails import Picture, picture, thumbnail

__all__ = [
    "Frame",
    "Legend",
    "Picture",
    "Section",
    "Whisker",
    "class_distribution",
    "curves",
    "forest",
    "fragment",
    "histograms",
    "levels",
    "panel",
    "picture",
    "precision_recall",
    "reliability",
    "render",
    "roc",
    "thumbnail",
    "write",
]
