"""Cold start: seconds from typing a command to the score of one picture, with Dermalert and with a notebook's code.

Comes in: nothing: it draws the picture and exports the untrained plain network, since what is timed does not depend
on the weights. Goes out: the median seconds of `dermalert score` and of a script that loads the same network with
Keras and predicts, and their ratio; and what importing the package costs. Each run is a process of its own started by
this one, in turns, so that a busy moment of the machine hits both; a first round of each, not counted, fills the
disk's cache.

    python benchmarks/score.py --rounds 7
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

PICTURE = (600, 450)  # pixels, as in HAM10000
TARGET = 4.0  # times faster than the notebook

# https://www.tensorflow.org/tutorials/images/classification, "Predict on new data".
NOTEBOOK = """
import sys
import keras

model = keras.models.load_model(sys.argv[1])
picture = keras.utils.load_img(sys.argv[2], target_size=(180, 180))
logits = model.predict(keras.utils.img_to_array(picture)[None])
print(keras.ops.softmax(logits[0]))
"""


def prepare(folder: Path) -> None:
    """Leaves a picture, a bundle and the same network as Keras saves it in `folder`."""
    from dataclasses import replace

    from dermalert.bundle.export import export_onnx
    from dermalert.bundle.format import Bundle
    from dermalert.drawn import draw_many
    from dermalert.judge.calibration import Calibration
    from dermalert.learn import networks
    from dermalert.learn.recipes import recipe_named
    from dermalert.taxonomy import NAMES

    (picture,) = draw_many(folder, count=1, size=PICTURE)
    picture.rename(folder / "picture.jpg")
    recipe = replace(recipe_named("plain"), precision="float32")
    model = networks.build(recipe, len(NAMES))
    model.save(folder / "model.keras")
    Bundle(
        name="untrained",
        classes=NAMES,
        size=recipe.size,
        calibration=Calibration.none(len(NAMES)),
        prevalence=dict.fromkeys(NAMES, 1 / len(NAMES)),
        data={},
        versions={},
        model=export_onnx(model, size=recipe.size),
        card="",
    ).save(folder / "bundle")


def seconds(command: Sequence[str]) -> float:
    """How long a process takes from its start to its end."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"})
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{done.stderr[-3000:]}")
    return taken


def in_turns(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, float]:
    """The median seconds of each command."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            one = seconds(command)
            if number:
                taken[name].append(one)
                print(f"  round {number} {name:24} {one:6.2f} s", file=sys.stderr)
    return {name: median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.prepare:
        prepare(asked.prepare)
        return
    with tempfile.TemporaryDirectory() as name:
        folder, python = Path(name), sys.executable
        seconds([python, __file__, "--prepare", name])
        picture = str(folder / "picture.jpg")
        bundle = str(folder / "bundle")
        found = in_turns(
            {
                "notebook": [python, "-c", NOTEBOOK, str(folder / "model.keras"), picture],
                "dermalert score": [python, "-m", "dermalert.cli", "score", picture, "--bundle", bundle],
                "dermalert --help": [python, "-m", "dermalert.cli", "--help"],
                "import dermalert": [python, "-c", "import dermalert"],
                "the interpreter alone": [python, "-c", "pass"],
            },
            asked.rounds,
        )
    print(f"median seconds of {asked.rounds} cold starts")
    for what, taken in found.items():
        print(f"{what:24}{taken:8.3f}")
    print(
        f"notebook / dermalert score: {found['notebook'] / found['dermalert score']:.1f} (target: {TARGET:g} or more)"
    )


if __name__ == "__main__":
    main()
