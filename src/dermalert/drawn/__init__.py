"""Cartoons of dermoscopic pictures and data sets made of them, so that everything runs without downloads."""

from dermalert.drawn.artefacts import NO_ARTEFACTS, USUAL, Artefacts
from dermalert.drawn.folders import DrawnSet, Planted, draw_class_folders, draw_many, draw_table
from dermalert.drawn.lesion import draw_lesion

__all__ = [
    "NO_ARTEFACTS",
    "USUAL",
    "Artefacts",
    "DrawnSet",
    "Planted",
    "draw_class_folders",
    "draw_lesion",
    "draw_many",
    "draw_table",
]
