# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a folder of pictures to figures that one may believe, in nineteen steps
#
# The steps are those of a student's project on the nine-class ISIC folder: load, look, cache, build a CNN, rescale,
# train, evaluate, draw the curves, judge the fit, augment, retrain, evaluate, analyse the imbalance, balance with
# Augmentor, retrain, evaluate; and, left there as future work, transfer learning, other augmentation, more diverse
# data. Here they are taken with Dermalert. `docs/tutorial.md` has the same with commands, and says at each step where
# the usual notebook goes wrong.
#
# **The pictures are cartoons** that the notebook draws itself, few of them, so that it runs in two or three minutes and
# downloads nothing. Its figures show that the way works, and nothing about skin. For real pictures name your folder in
# step 1, and leave out `epochs` wherever it is given.
#
# You need `pip install '.[train]'` in a clone of Dermalert. All files go into the folder `nineteen-steps` beside this
# notebook; you may delete it at any time.

# %%
import json
import shutil
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

from IPython.display import HTML, display

import dermalert
from dermalert import page
from dermalert.drawn import draw_class_folders

WORK = Path("nineteen-steps")
shutil.rmtree(WORK, ignore_errors=True)

# %% [markdown]
# Three helpers that only show things. You need not read them.

# %%
STYLE = """text { font: 12px sans-serif; fill: #333 } .number { text-anchor: end } .track { fill: #eee }
.grid { stroke: #ddd } .axis, .mark { stroke: #666; fill: none } .line { fill: none; stroke-width: 2 }
.s1 { stroke: #5b6b78; stroke-dasharray: 6 4 } .s2 { stroke: #0072b2 }
.fill { stroke: none } .fill.s1 { fill: #5b6b78 } .dot.s2 { fill: #0072b2 }"""


def charts(*drawings):
    """Charts as the reports draw them, side by side."""
    images = []
    for svg in map(str, drawings):
        title = svg.partition("<title>")[2].partition("</title>")[0]
        svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background: white" ', 1)
        svg = svg.replace("</svg>", f"<style>{STYLE}</style></svg>")
        data = b64encode(svg.encode()).decode()
        images.append(f'<img width="400" alt="{title}" src="data:image/svg+xml;base64,{data}">')
    return HTML(" ".join(images))


def gallery(rows):
    """Pictures, a row for each name; uint8 (H, W, 3)."""
    cells = "".join(
        f"<tr><th>{name}</th>"
        + "".join(f'<td><img alt="{name}" src="{page.thumbnail(pixels, edge=84)}"></td>' for pixels in pictures)
        + "</tr>"
        for name, pictures in rows.items()
    )
    return HTML(f"<table>{cells}</table>")


def tell(evaluations):
    """The headline figures, each with its 95 % interval."""
    for name, evaluation in evaluations.items():
        print(f"{name}: {evaluation.pictures} pictures of {evaluation.groups} lesions")
        for figure in ("accuracy", "balanced_accuracy", "melanoma_auc"):
            print(f"    {figure:<20}{evaluation.figures[figure]}")


# %% [markdown]
# ## 1. Load the pictures
#
# A data set is a folder with a folder for each diagnosis, or pictures with a CSV table. `load_manifest` opens every
# file once and gives a table with one row a picture. A file that is no picture is left out, and stops nothing.

# %%
CLASSES = {
    "nevus": 30,
    "melanoma": 24,
    "basal cell carcinoma": 16,
    "pigmented benign keratosis": 10,
    "dermatofibroma": 6,
}
PICTURES = WORK / "pictures"
draw_class_folders(PICTURES, per_class=CLASSES, test_per_class=6, classes=tuple(CLASSES))

manifest = dermalert.load_manifest(PICTURES)
print(len(manifest), "pictures; the first three:")
for row in manifest.table.select(["image_id", "given_split", "given_label", "width", "height"]).slice(0, 3).to_pylist():
    print(row)

# %% [markdown]
# ## 2. Look at them
#
# Look before you train. `audit` finds what an eye would not: copies under two labels, test pictures that Train knows,
# files that cannot be opened. Such faults were drawn on purpose here. Open `audit.html` for all of it.

# %%
report = dermalert.audit(PICTURES, out=WORK / "audit")
contradictory = [group for group in report.identical if group.contradictory]
print(len(report.refused), "files could not be opened, for example:", report.refused[0].reason)
print(len(report.identical), "groups of identical files,", len(contradictory), "of them under contradictory labels")
print(len(report.leaked), "test pictures are known to Train")

# %%
from dermalert.intake.showing import pixels_by_id

manifest = report.manifest
ids, labels = manifest.column("image_id"), manifest.column("given_label")
pixels = pixels_by_id(manifest)
some = {name: [each for each, label in zip(ids, labels, strict=True) if label == name][:5] for name in CLASSES}
gallery({name: map(pixels, chosen) for name, chosen in some.items()})

# %%
gallery({" and ".join(group.labels): [pixels(ids[row]) for row in group.rows] for group in contradictory})

# %% [markdown]
# ## 3. Cache the decoded pictures
#
# Decoding and scaling a photograph takes time, and comes out the same in every epoch. So pictures are decoded once,
# into a file that all trainings read. `train` does so by itself; here it is done by hand, so that you see it. What is
# kept is the picture alone: chance changes come later, or they would be the same in every epoch.

# %%
from dermalert.learn.pipeline import DecodedCache

RUNS = WORK / "runs"
cache = DecodedCache.build(manifest.paths(), manifest.column("sha256"), size=(180, 180), folder=RUNS / "decoded")
print(cache.pixels.shape, cache.pixels.dtype, f"{cache.pixels.nbytes / 1e6:.0f} MB")

# %% [markdown]
# ## 4. Build a network
#
# A recipe says everything that a training does, as one value. The recipe `plain` is the small network of TensorFlow's
# tutorial: three convolutions, each followed by pooling, and two dense layers, from nothing. It is the baseline that
# the others have to beat.

# %%
plain_recipe = dermalert.recipe_named("plain")
print(plain_recipe.to_json())

# %%
from dermalert.learn import networks

model = networks.build(replace(plain_recipe, precision="float32"), classes=len(CLASSES))
for layer in model.layers:
    print(f"{type(layer).__name__:<14} {layer.output.shape}")
print(f"{model.count_params():,} weights")

# %% [markdown]
# ## 5. Rescale inside the network
#
# Pixels are whole numbers from 0 to 255; networks learn better from small ones. The first layer above divides by 255.
# Since it is a layer, it becomes part of the model that scores: nobody can forget it.

# %%
rescaling = model.layers[1]
picture = cache.pixels[:1]
print("in: ", picture.min(), "to", picture.max())
print("out:", f"{float(rescaling(picture).numpy().min()):.2f} to {float(rescaling(picture).numpy().max()):.2f}")

# %% [markdown]
# ## 6. Train
#
# Lesions are divided into training and validation first, copies and all photographs of one lesion staying together.
# Then the network learns from the training pictures, and after each epoch it is tried on the validation pictures. The
# epoch with the lowest validation loss is kept. The test pictures choose nothing.

# %%
plain = dermalert.train(WORK / "audit" / "manifest.parquet", out=RUNS / "plain", recipe="plain", epochs=6)
print(*sorted(each.name for each in (RUNS / "plain").iterdir()), sep="\n")

# %% [markdown]
# ## 7. Evaluate
#
# Three sets of pictures, three answers: *validation* chose the epoch, so it flatters a little; *test, raw* is the Test
# folder as it is; *test, clean* leaves out what training knows. Behind each figure stands its interval: how far chance
# alone could have moved it. With so few pictures, far. The page for people is `runs/plain/report.html`.

# %%
tell(plain)

# %% [markdown]
# The model has no alert threshold: to promise that 95 % of the melanomas are found, validation must hold 20 of them at
# least.

# %%
bundle = dermalert.Bundle.load(RUNS / "plain" / "bundle")
print(bundle.operating_point)

# %% [markdown]
# ## 8. Draw the curves
#
# Loss (lower is better) and accuracy after each epoch: training dashed, validation solid. The mark is the epoch kept.

# %%
from dermalert.learn.history import History


def curves(run):
    """The charts of a run folder, and its history."""
    history = History.from_json((run / "history.json").read_text("utf-8"))
    best = history.best.number
    loss = page.curves(
        history.column("train_loss"), history.column("validation_loss"), quantity="loss", best_epoch=best
    )
    accuracy = page.curves(
        history.column("train_accuracy"),
        history.column("validation_accuracy"),
        quantity="accuracy",
        best_epoch=best,
        fraction=True,
    )
    return charts(loss, accuracy), history


shown, history = curves(RUNS / "plain")
display(shown)

# %% [markdown]
# ## 9. Overfitting or underfitting?
#
# Where validation gets worse while training gets better, the network learns its pictures by heart: overfitting. Where
# neither gets good, it cannot tell even the pictures that it learns from: underfitting. Dermalert reads the curves,
# and says what to try.

# %%
from dermalert.learn.diagnose import diagnose

reading = diagnose(history)
print(reading.verdict.upper(), *reading.sentences, "", "To try:", *reading.suggestions, sep="\n")

# %% [markdown]
# ## 10. Augment
#
# A lesion stays what it is when it is mirrored, turned, brought nearer or lit otherwise. The recipe `augmented` changes
# every training picture anew in each epoch, so that there is less to learn by heart. Validation and test pictures stay
# as they are. Look at what it does: if you could no longer name the lesion, neither should the network have to.

# %%
from dermalert.learn import augment

melanoma = pixels(some["melanoma"][0])
augmented_recipe = dermalert.recipe_named("augmented")
gallery(augment.examples(augmented_recipe.augment, melanoma, count=5, seed=0))

# %% [markdown]
# ## 11. Train again
#
# The same pictures, the same split, the same network; only the augmentation is new. Augmented training needs more
# epochs: the recipe allows 40, and stops by itself. Six are too few to judge it by.

# %%
augmented = dermalert.train(WORK / "audit" / "manifest.parquet", out=RUNS / "augmented", recipe="augmented", epochs=6)
display(curves(RUNS / "augmented")[0])

# %% [markdown]
# ## 12. Evaluate again
#
# Is it better? Two figures side by side do not answer that: their intervals are wide, and they overlap. Step 19
# compares models on the same lesions.

# %%
tell({"plain, test, clean": plain["test, clean"], "augmented, test, clean": augmented["test, clean"]})

# %% [markdown]
# ## 13. Analyse the class imbalance
#
# Some diagnoses have many times the pictures of others. A network that always says “nevus” is right often, and finds
# nothing. So judge by balanced accuracy, in which a rare diagnosis counts as much as a common one, and look at each
# diagnosis by itself.

# %%
balance = report.balance
print(f"The largest class has {balance.ratio:.1f} times the pictures of the smallest.")
print(f"Always saying “{balance.majority}” is {balance.majority_accuracy:.0%} accurate.")
charts(page.class_distribution({name: {"pictures": number} for name, number in balance.counts.items()}))

# %% [markdown]
# ## 14. Balance the classes with Augmentor
#
# The Augmentor library makes altered copies of the rare diagnoses' pictures until every diagnosis has as many as the
# largest. **The split comes first**, and only training pictures are copied. Most public notebooks copy first and split
# then: nearly every validation picture has a copy among the training pictures, and validation measures memory. Step 19
# shows what that looks like.

# %%
from dermalert.learn import balance as balancing

gallery({"Augmentor": balancing.examples(melanoma, count=5, seed=0)})

# %% [markdown]
# ## 15. Train on balanced classes

# %%
balanced = dermalert.train(WORK / "audit" / "manifest.parquet", out=RUNS / "balanced", recipe="balanced", epochs=6)
for name in ("plain", "balanced"):
    told = json.loads((RUNS / name / "metrics.json").read_text("utf-8"))
    print(f"{name:<10} an epoch shows", told["training"]["shown"])

# %% [markdown]
# ## 16. Evaluate the balanced model
#
# Are the rare diagnoses found more often, and what do the common ones pay for it?

# %%
print(f"{'found, on test, clean':<28}{'plain':>8}{'balanced':>10}")
for before, after in zip(plain["test, clean"].per_class, balanced["test, clean"].per_class, strict=True):
    print(f"{before.name:<28}{before.sensitivity.value:>8.0%}{after.sensitivity.value:>10.0%}")

# %% [markdown]
# Other ways to deal with rare classes need no copies: `class-weights`, `balanced-sampling`, `focal` and
# `logit-adjusted`. `dermalert.study(..., recipes="balancing")` compares them all.
#
# ## 17. Transfer learning
#
# A network that has learned from a million photographs of all kinds knows edges, textures and colours already. The
# recipe `transfer` starts from MobileNetV2, whose weights come with Dermalert: first only the new last layer learns,
# then all of it, deeper layers more slowly. It differs from `augmented` in this:

# %%
from dermalert.learn.recipes import differences

print(*differences(dermalert.recipe_named("transfer"), augmented_recipe), sep="\n")

# %% [markdown]
# It is trained in step 19, beside the others.
#
# ## 18. Other augmentation
#
# Seven more recipes add one thing each to `augmented`: `mixup`, `cutmix`, `randaugment`, `colour-constancy`,
# `occlusion`, `no-vignette`, `test-time`. Or write your own: a recipe is JSON, to be edited and given back. The log for
# TensorBoard is off unless asked for; it is a file in the run folder.

# %%
mine = replace(
    augmented_recipe,
    name="mine",
    summary="Augmented, with drawn hairs and a little dropout.",
    augment={**augmented_recipe.augment, "hair": 0.3},
    dropout=0.2,
)
(WORK / "mine.json").write_text(mine.to_json(), "utf-8")

dermalert.train(
    WORK / "audit" / "manifest.parquet", out=RUNS / "mine", recipe=WORK / "mine.json", epochs=2, log="tensorboard"
)
print(sorted(each.relative_to(RUNS).as_posix() for each in (RUNS / "mine" / "tensorboard").iterdir()))
print(*differences(dermalert.Recipe.from_json((RUNS / "mine" / "recipe.json").read_text("utf-8")), mine), sep="\n")

# %% [markdown]
# The recipe in the run folder is the one that ran, with the precision that was found to be faster here and the epochs
# asked for: `dermalert.train(..., recipe="RUN/recipe.json")` does the same again.
#
# ## 19. More diverse data
#
# A model knows the collection that it learned from: its cameras, its patients, its labels. The arm `pooled` learns from
# other collections as well. Lesions that two collections share are found, and none that stands in Test is learned from
# by that way.
#
# A study trains several recipes on one split, each in a process of its own, and compares them with `plain`: both models
# are judged in the same random draws of lesions, so a difference has an interval of its own. `show_leak` trains
# `balanced` once more as most notebooks do. With real pictures give `repeats=3` too: another seed alone moves figures.

# %%
draw_class_folders(WORK / "clinic", per_class=8, test_per_class=0, classes=tuple(CLASSES), faults=False, seed=5)

study = dermalert.study(
    PICTURES,
    out=WORK / "study",
    recipes=("plain", "balanced", "transfer", "pooled"),
    pool=WORK / "clinic",
    epochs=2,
    show_leak=True,
)
told = json.loads((WORK / "study" / "study.json").read_text("utf-8"))
view = told["headline"]
print(f"On {view}: melanoma AUC, and its difference from plain")
for arm in told["arms"]:
    if arm["state"] != "done":
        print(f"{arm['name']:<10}{arm['state']}: {arm['why']}")
        continue
    value = arm["runs"][0]["evaluations"][view]["figures"]["melanoma_auc"]["value"]
    print(f"{arm['name']:<10}{value:.2f}", end="")
    if arm["differences"]:
        one = arm["differences"][view]["melanoma_auc"]
        print(f"   {one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f}): {one['verdict']}", end="")
    print()

# %% [markdown]
# The whole comparison is on the page `study/study.html`. And this is what oversampling before the split does: of the
# validation pictures, how many are known to training?

# %%
for way, side in told["leak"].items():
    accuracy = {name: each["figures"]["accuracy"]["value"] for name, each in side["evaluations"].items()}
    print(
        f"{way:<7} {side['siblings']} of {side['validation']} validation pictures known;",
        ", ".join(f"accuracy on {name} {value:.0%}" for name, value in accuracy.items()),
    )

# %% [markdown]
# In two epochs nothing is learned by heart, so validation need not flatter the leaky way here. With real pictures and
# all epochs it does.
#
# ## And then
#
# A trained model scores new pictures without a training framework. What lies in `bundle/` is all that it takes.

# %%
for finding in list(dermalert.score(PICTURES / "Test" / "melanoma", bundle))[:3]:
    print(
        finding.status,
        f"melanoma {finding.melanoma:.2f}",
        finding.alert or "(no threshold: nothing is said of an alert)",
    )
