"""Diagnoses of pigmented skin lesions: names, synonyms, codes, and which are malignant.

Comes in: a label as some data set writes it ("mel", "Melanoma", "BKL", "squamous_cell_carcinoma").
Goes out: a `Label`, the set of the nine diagnoses that it may stand for. A coarse label (HAM10000's
`akiec` or `bkl`, ISIC 2017's "not melanoma") stands for several and stays so: nothing here guesses
which one was meant.

The nine are the classes of the public nine-class ISIC folder. Synonyms and codes follow the ISIC 2018
and 2019 challenges and Tschandl et al., "The HAM10000 dataset", Sci Data 5:180161 (2018).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from dermalert.errors import DataError


@dataclass(frozen=True)
class Diagnosis:
    """One diagnosis: `name` is its class folder, `malignant` whether it is a cancer that can spread."""

    name: str
    malignant: bool
    synonyms: tuple[str, ...]


DIAGNOSES: tuple[Diagnosis, ...] = (
    Diagnosis("actinic keratosis", False, ("ak", "solar keratosis", "ack")),
    Diagnosis("basal cell carcinoma", True, ("bcc", "basalioma")),
    Diagnosis("dermatofibroma", False, ("df", "histiocytoma")),
    Diagnosis("melanoma", True, ("mel", "malignant melanoma", "melanoma in situ", "lentigo maligna")),
    Diagnosis("nevus", False, ("nv", "nev", "nevi", "naevus", "naevi", "melanocytic nevus", "melanocytic naevus")),
    Diagnosis("pigmented benign keratosis", False, ("pbk",)),
    Diagnosis("seborrheic keratosis", False, ("sk", "sek", "seborrhoeic keratosis", "seb k")),
    Diagnosis("squamous cell carcinoma", True, ("scc", "bowen disease", "bowens disease")),
    Diagnosis("vascular lesion", False, ("vasc", "vascular", "vascular lesions", "hemangioma", "haemangioma")),
)
NAMES: tuple[str, ...] = tuple(diagnosis.name for diagnosis in DIAGNOSES)
MELANOMA = "melanoma"
MALIGNANT: frozenset[str] = frozenset(d.name for d in DIAGNOSES if d.malignant)

# Labels that stand for several of the nine. HAM10000's akiec holds actinic keratosis and Bowen's disease
# (squamous cell carcinoma in situ); its bkl holds solar lentigo, seborrheic and lichen-planus-like keratosis.
COARSE: dict[str, frozenset[str]] = {
    "akiec": frozenset({"actinic keratosis", "squamous cell carcinoma"}),
    "bkl": frozenset({"pigmented benign keratosis", "seborrheic keratosis"}),
    "not melanoma": frozenset(NAMES) - {MELANOMA},
    "nevus or seborrheic keratosis": frozenset({"nevus", "seborrheic keratosis"}),
    "benign": frozenset(NAMES) - MALIGNANT,
    "malignant": MALIGNANT,
}
_COARSE_SYNONYMS = {
    "benign keratosis": "bkl",
    "benign keratosis like lesion": "bkl",
    "bowen actinic keratosis": "akiec",
    "intraepithelial carcinoma": "akiec",
    "non melanoma": "not melanoma",
    "nonmelanoma": "not melanoma",
}


@dataclass(frozen=True, order=True)
class Label:
    """What a data set says of a lesion.

    Attributes:
        name: the canonical word: one of `NAMES`, or a key of `COARSE`.
        stands_for: the diagnoses it may be, sorted; one for an exact label.
    """

    name: str
    stands_for: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        return len(self.stands_for) == 1

    @property
    def melanoma(self) -> bool | None:
        """Whether it says melanoma; None where it leaves that open."""
        return _all_or_none(name == MELANOMA for name in self.stands_for)

    @property
    def malignant(self) -> bool | None:
        """Whether it says malignant; None where it leaves that open."""
        return _all_or_none(name in MALIGNANT for name in self.stands_for)

    def contradicts(self, other: Label) -> bool:
        """Whether no diagnosis satisfies both labels."""
        return not set(self.stands_for) & set(other.stands_for)


def _all_or_none(flags: Iterable[bool]) -> bool | None:
    seen = set(flags)
    return seen.pop() if len(seen) == 1 else None


def _normal(text: str) -> str:
    """Lower-case words, in letters and digits of any script: "не melanoma" must not be read as "melanoma"."""
    return " ".join(re.findall(r"[^\W_]+", text.lower().replace("'", "")))


def _table() -> dict[str, Label]:
    table: dict[str, Label] = {}
    for diagnosis in DIAGNOSES:
        label = Label(diagnosis.name, (diagnosis.name,))
        for word in (diagnosis.name, *diagnosis.synonyms):
            table[_normal(word)] = label
    for name, stands_for in COARSE.items():
        table[_normal(name)] = Label(name, tuple(sorted(stands_for)))
    for synonym, name in _COARSE_SYNONYMS.items():
        table[_normal(synonym)] = table[_normal(name)]
    return table


_TABLE = _table()


@lru_cache(maxsize=4096)
def label_of(text: str) -> Label:
    """The label that `text` means.

    >>> label_of("NV").name
    'nevus'
    >>> label_of("akiec").stands_for
    ('actinic keratosis', 'squamous cell carcinoma')

    Raises:
        DataError: the text is no diagnosis we know; the message lists those we do.
    """
    label = _TABLE.get(_normal(text))
    if label is None:
        raise DataError(f"{text!r} is no diagnosis known here. Known: {', '.join(NAMES)}; coarse: {', '.join(COARSE)}.")
    return label
