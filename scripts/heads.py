"""Whether a release's networks do better with another head, or closer to ImageNet: tried on collections never seen.

    python scripts/heads.py runs/release --out runs/heads

Comes in: a finished release. Of its network without fold 1 and those without a collection, the stages that learnt are
moved back towards ImageNet's weights by a share (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022),
and a logistic regression of melanoma is fitted on their features, on the photographs that the network learnt from
(Kirichenko et al., "Last layer re-training is sufficient for robustness to spurious correlations", ICLR 2023). Goes
out: melanoma AUC, beside that of the network's own head with the release's calibration. Features are kept in `--out`.
The held-out tenth has no part in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from dermalert.bundle.export import export_onnx
from dermalert.bundle.format import Bundle
from dermalert.intake.manifest import Manifest
from dermalert.learn import networks
from dermalert.learn.checkpoint import read_arrays, write_arrays
from dermalert.learn.outputs import for_export
from dermalert.learn.recipes import RELEASE, Recipe
from dermalert.score.engine import Engine
from dermalert.stages.gathering import HELD_OUT, Photographs, gather
from dermalert.stages.training import bare
from dermalert.taxonomy import MELANOMA, NAMES

SHARES = (1.0, 0.75, 0.5, 0.0)  # of what was learnt that is kept
STRENGTHS = (1e-4, 1e-3)  # C of the logistic regression
OUTPUTS = ("logits", "embedding", "texture")
BATCH = 32
Features = dict[str, NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="the run folder of a finished release")
    parser.add_argument("--out", type=Path, required=True, help="where features are kept")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    shots = gather(Manifest.read(asked.release / "pooled.parquet"), RELEASE, asked.release.parent / "decoded")
    bundle = Bundle.load(asked.release / "bundle")
    for name in ("fold 1", *(each for each in shots.members() if each.startswith("without"))):
        for share in SHARES:
            found = features(asked.release, name, share, shots, asked.out / f"{name} {share:g}.npz")
            for told, scores in heads(found, name, share, shots, bundle):
                print(f"{name:20} {share:4g} {told:24} {figures(name, scores, shots)}", flush=True)


def features(run: Path, name: str, share: float, shots: Photographs, file: Path) -> Features:
    """The outputs of one network, a row for each photograph."""
    if not file.exists():
        write_arrays(file, _computed(run, name, share, shots), {})
    return read_arrays(file)[0]


def _computed(run: Path, name: str, share: float, shots: Photographs) -> Features:
    about = json.loads((run / "members.json").read_text(encoding="utf-8"))
    recipe = Recipe.from_json(json.dumps(about["recipe"]))
    model = networks.build(recipe, len(NAMES))
    _, upper = networks.divided(model, recipe.frozen_stages)
    arrays, _ = read_arrays(run / "members.npz")
    learnt = [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}|weight_")]
    for variable, weight in zip(upper.variables, learnt, strict=True):
        if weight.dtype == np.float32:  # not the state of dropout's generator
            variable.assign(share * weight + (1 - share) * variable.numpy())
    engine = Engine(bare(export_onnx(for_export(model), size=recipe.size), recipe, NAMES))
    blocks = [engine.run(shots.pixels[at : at + BATCH], *OUTPUTS) for at in range(0, len(shots.pixels), BATCH)]
    return {output: np.concatenate([block[output] for block in blocks]) for output in OUTPUTS}


def heads(
    found: Mapping[str, NDArray[np.float32]], name: str, share: float, shots: Photographs, bundle: Bundle
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Scores of melanoma, float64 (N,), by its own head and by those that are fitted here."""
    column = NAMES.index(MELANOMA)
    if share == 1:
        yield "its own, calibrated", bundle.calibration.apply(found["logits"])[:, column]
    rows = shots.members()[name]
    rows = rows[_decided(shots)[rows]]
    for words, parts in (("embedding", ("embedding",)), ("embedding, texture", ("embedding", "texture"))):
        every = np.concatenate([found[part] for part in parts], axis=1)
        every = StandardScaler().fit(every[rows]).transform(every)
        for strength in STRENGTHS:
            fitted = LogisticRegression(C=strength, max_iter=300).fit(every[rows], shots.allowed[rows, column])
            yield f"{words}, C {strength:g}", fitted.decision_function(every)


def figures(name: str, scores: NDArray[np.float64], shots: Photographs) -> str:
    """Melanoma AUC on what the network did not learn from."""
    if name.startswith("without"):
        return f"{_auc(scores, shots.alone(name.removeprefix('without ')), shots):.3f}"
    rows = {each: (shots.parts == name) & (shots.collections == each) for each in sorted(set(shots.collections))}
    return ", ".join(f"{each} {_auc(scores, kept, shots):.3f}" for each, kept in rows.items())


def _auc(scores: NDArray[np.float64], rows: NDArray[np.bool_], shots: Photographs) -> float:
    kept = rows & _decided(shots) & (shots.parts != HELD_OUT)
    return float(roc_auc_score(shots.allowed[kept, NAMES.index(MELANOMA)], scores[kept]))


def _decided(shots: Photographs) -> NDArray[np.bool_]:
    """Where the label says whether it is melanoma."""
    may = shots.allowed[:, NAMES.index(MELANOMA)]
    return np.asarray(~may | (shots.allowed.sum(axis=1) == 1))


if __name__ == "__main__":
    main()
