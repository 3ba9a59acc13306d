"""Dermalert: from a folder of dermoscopic pictures to an honest melanoma alert.

Research software. It supports a clinician and decides nothing alone.

The public names, each loaded when it is first used, so that `import dermalert` costs next to nothing:

    load_manifest   what lies in a folder or table, audited
    audit           what is wrong with a data set
    train           a model, judged, with its report
    study           several ways of training, compared on the same pictures
    evaluate        a model judged on other labelled pictures
    score           findings for new pictures
    explain         where in a picture the evidence for a diagnosis lies
    similar         the pictures of a collection that are most like one picture
    Bundle          a trained model, ready to score
    Recipe          one way of training; `recipe_named` gives those that come with Dermalert

Errors that a user can cause are in `dermalert.errors`. All other modules may change without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dermalert.api import audit, evaluate, explain, load_manifest, score, similar, study, train
    from dermalert.bundle.format import Bundle
    from dermalert.learn.recipes import Recipe, recipe_named

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "Recipe",
    "__version__",
    "audit",
    "evaluate",
    "explain",
    "load_manifest",
    "recipe_named",
    "score",
    "similar",
    "study",
    "train",
]

_HOMES = {
    **dict.fromkeys(
        ("audit", "evaluate", "explain", "load_manifest", "score", "similar", "study", "train"), "dermalert.api"
    ),
    **dict.fromkeys(("Recipe", "recipe_named"), "dermalert.learn.recipes"),
    "Bundle": "dermalert.bundle.format",
}

# Python hangs each room on its parent when it first loads it. The room `score` is empty at its top, so it is loaded
# and taken down here: loaded later, it would stand in the place of the function of that name.
import_module("dermalert.score")
del globals()["score"]

if not TYPE_CHECKING:  # a type checker would take any name for public

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(_HOMES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
