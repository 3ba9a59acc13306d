"""A bundle and an evaluation of it, for what is written about both."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphs
from dermalert.bundle import licences
from dermalert.bundle.format import Bundle
from dermalert.judge.evaluation import Evaluation, evaluate
from dermalert.judge.scores import Scores

MODEL = b"x" * 1_500_000


def bundle(**changes: Any) -> Bundle:
    """One that ships with its licence, and a graph that nobody runs."""
    data = {"source": "pool", "fingerprint": "f" * 64, "content": "c" * 64, "train_pictures": 800}
    fields = {"licence": licences.WEIGHTS, "attribution": licences.ATTRIBUTION, "model": MODEL, "data": data}
    return graphs.bundle(**{**fields, **changes})


def evaluation(*, melanomas: bool = True) -> Evaluation:
    random = np.random.default_rng(7)
    truth = np.arange(120) % 3 if melanomas else np.full(120, 1)
    logits = random.normal(size=(120, 3))
    logits[np.arange(120), truth] += 2
    odds = np.exp(logits)
    ids = tuple(f"{i}.jpg" for i in range(120))
    groups = np.arange(120, dtype=np.int64) // 2
    told = np.eye(3, dtype=bool)[truth]
    scores = Scores(ids, graphs.CLASSES, odds / odds.sum(axis=1, keepdims=True), told, groups)
    return evaluate(scores, operating_point=graphs.point(0.4), resamples=60)
