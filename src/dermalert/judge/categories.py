"""The seven categories that public labels tell apart, and figures on them.

Comes in: scores on nine classes and labels of which some are coarse. Goes out: scores on the categories, and the
figures that challenges and papers give. Like ISIC 2018's, but for its AKIEC, which holds no invasive carcinoma.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dermalert.judge.conformal import belonging, categories_of
from dermalert.judge.evaluation import evaluate
from dermalert.judge.intervals import Interval
from dermalert.judge.scores import Scores


def seven(scores: Scores, prevalence: Mapping[str, float], *, resamples: int) -> dict[str, Interval]:
    """Figures on the categories, of pictures whose label falls into one.

    Returns:
        `macro_auc`; `accuracy` and `balanced_accuracy` of the likeliest category; and `even_balanced_accuracy` of the
        category that is likeliest where all are equally common, which is what balanced accuracy rewards.
    """
    merged, even = in_categories(scores, {}), in_categories(scores, prevalence)
    likely = evaluate(merged, operating_point=None, resamples=resamples).figures
    evenly = evaluate(even, operating_point=None, resamples=resamples).figures
    names = ("macro_auc", "accuracy", "balanced_accuracy")
    return {**{name: likely[name] for name in names}, "even_balanced_accuracy": evenly["balanced_accuracy"]}


def in_categories(scores: Scores, prevalence: Mapping[str, float]) -> Scores:
    """The scores with classes that coarse labels do not tell apart as one, on pictures whose label is one category.

    Args:
        prevalence: what each class's probability is divided by first, so that all are equally common; none: as it is.
    """
    categories = categories_of(scores.classes)
    belongs = belonging(scores.classes, categories)
    probabilities = scores.probabilities @ belongs
    if prevalence:
        probabilities = probabilities / (np.array([prevalence[name] for name in scores.classes]) @ belongs)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth = (scores.truth.astype(np.int64) @ belongs) > 0
    merged = Scores(scores.image_ids, tuple(categories), probabilities, truth, scores.groups)
    return merged.where(truth.sum(axis=1) == 1)
