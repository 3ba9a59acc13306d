"""The command line: parses, calls, prints. Everything it can do, the stages can do without it.

Exit status: 0 done, 1 failed with one line on stderr, 2 wrong usage. Progress goes to stderr, results to stdout or
to the named file. Heavy imports stand inside the commands, so that `--help` and `score` start at once.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dermalert import __version__
from dermalert.clinic.commands import clinic_commands
from dermalert.errors import DermalertError, printable

if TYPE_CHECKING:
    from dermalert.bundle.format import Bundle
    from dermalert.score.cluster import Cluster

Command = TypeVar("Command", bound=Callable[..., Any])

DATA = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
OUT = click.Path(path_type=Path, file_okay=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: turns errors that a user can cause into one line and exit status 1."""
    try:
        commands.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _fail("Stopped.")
    except click.ClickException as error:
        _fail(error.format_message())
    except DermalertError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")


def _fail(message: str) -> None:
    print(f"dermalert: {' '.join(printable(message.replace(chr(10), ' ')).split())}", file=sys.stderr)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dermalert")
def commands() -> None:
    """Audit dermoscopic pictures, train and honestly judge melanoma models, and alert.

    Research software: it supports a clinician and decides nothing alone.

    \b
    The whole way:
      dermalert audit pictures/ --out audit/
      dermalert train pictures/ --recipe plain --out runs/plain
      dermalert score new-pictures/ --bundle runs/plain/bundle --out alerts.csv
    """


def _columns(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not KEY=NAME, as in --column image=file_name")
    return dict(pair.split("=", 1) for pair in pairs)


def _source_options(command: Command) -> Command:
    """How to read a table that does not use the names we know."""
    table = click.option("--table", type=DATA, help="The CSV that describes the pictures, if not found by itself.")
    column = click.option(
        "--column",
        "columns",
        multiple=True,
        callback=_columns,
        metavar="KEY=NAME",
        help="A column of your table: image, diagnosis, lesion_id, patient_id, age, sex, site or split = its name.",
    )
    workers = click.option("--workers", type=click.IntRange(1), help="Decoding threads; default: one a core.")
    return table(column(workers(command)))


_as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything by chance.")


def _cluster_options(command: Command) -> Command:
    """Where `score` runs: on this machine's threads, or on the machines of a Ray cluster."""
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: by several workers, on this machine or a cluster, into the folder --out.",
    )
    address = click.option(
        "--address", metavar="HOST:PORT", help="Ray: of a cluster, or auto; default: one of its own, on this machine."
    )
    cpus = click.option("--worker-cpus", type=click.IntRange(1), help="Ray: cores of each worker; default: 1.")
    gpus = click.option(
        "--worker-gpus", type=click.FloatRange(0, min_open=True), help="Ray: GPUs of each worker, or a share of one."
    )
    return engine(address(cpus(gpus(command))))


def _cluster(engine: str, workers: int | None, **given: Any) -> Cluster | None:
    """What the options of `_cluster_options` say; None for this machine's threads."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if engine == "ray":
        from dermalert.score.cluster import Cluster

        return Cluster(workers=workers, **chosen)
    if chosen:
        raise click.UsageError(f"--{next(iter(chosen)).replace('_', '-')} is for --engine ray.")
    return None


@commands.command()
@click.argument("data", type=DATA)
@click.option("--against", type=DATA, help="Another data set that may hold the same pictures or lesions.")
@click.option("--out", type=OUT, required=True, help="Folder for audit.json, audit.html and manifest.parquet.")
@_source_options
@_seed
@_as_json
def audit(data: Path, against: Path | None, out: Path, as_json: bool, **options: Any) -> None:
    """Find what is wrong with a data set before a model is trained on it.

    DATA is a folder of class folders, a folder with a CSV table, or the table. Finds identical and nearly
    identical pictures, contradictory labels, leaks between Train and Test, imbalance, and shifts.

    \b
    Example:
      dermalert audit isic9/ --against ham10000/ --out audit/
    """
    from dermalert.stages.auditing import run_audit, summary

    report = run_audit(data, out, against=against, command=_typed(), made=_now(), **options)
    if as_json:
        click.echo((out / "audit.json").read_text(encoding="utf-8"), nl=False)
        return
    for line in summary(report):
        click.echo(printable(line))
    click.echo(f"Read {printable(str(out / 'audit.html'))}")


@commands.command()
@click.argument("data", type=DATA)
@click.option("--recipe", "name", help="The recipe's name; default: plain. `dermalert recipes` lists them.")
@click.option("--from", "file", type=FILE, help="A recipe.json, as a run folder holds it or you edited it.")
@click.option(
    "--network",
    help="Not the recipe's, but plain-cnn, mobilenetv2, efficientnet-lite0 or -lite2, or keras/NAME of "
    "keras.applications.",
)
@click.option("--weights", help="What a backbone starts from: imagenet, none, or the path of a weights file.")
@click.option("--out", "run", type=OUT, required=True, help="The run folder.")
@click.option("--epochs", type=click.IntRange(1), help="At most so many, in place of the recipe's number.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--cache", type=OUT, help="Where decoded pictures are kept; default: decoded/ beside the run folder.")
@click.option(
    "--log", multiple=True, metavar="WHERE", help="Write the curves there too: tensorboard, mlflow or mlflow=URI."
)
@click.option("--resamples", type=click.IntRange(100), default=1000, show_default=True, help="For the intervals.")
@_source_options
@click.option("--seed", type=click.IntRange(0), help="Of everything by chance; default: the recipe's.")
@_as_json
def train(
    data: Path,
    name: str | None,
    file: Path | None,
    network: str | None,
    weights: str | None,
    run: Path,
    seed: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Split, train, evaluate, and write a bundle that can score.

    DATA is as for `audit`, or a manifest.parquet that `audit` wrote. Lesions, patients and copies are never
    parted by the split; epoch, temperature and alert threshold are chosen on validation pictures only.

    \b
    Example:
      dermalert train isic9/ --recipe plain --out runs/plain
      dermalert train isic9/ --recipe plain --out runs/plain --resume
      dermalert train isic9/ --recipe transfer --network keras/EfficientNetB0 --out runs/b0
      dermalert train runs/plain/manifest.parquet --from runs/plain/recipe.json --out runs/again
    """
    from dataclasses import replace

    from dermalert.learn.recipes import recipe_from, recipe_named
    from dermalert.stages.telling import summary
    from dermalert.stages.training import run_train

    if name and file:
        raise click.UsageError("--recipe and --from both say what to do: give one.")
    recipe = recipe_from(file) if file else recipe_named(name or "plain")
    recipe = replace(
        recipe,
        network=network or recipe.network,
        weights=recipe.weights if weights is None else weights,
        seed=recipe.seed if seed is None else seed,
    )
    evaluations = run_train(data, recipe, run, command=_typed(), made=_now(), **options)
    _tell_figures(summary(evaluations), run, as_json)


@commands.command()
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the recipes, or print the one of NAME as JSON to save, edit and train with.

    \b
    Example:
      dermalert recipes augmented > mine.json
      dermalert train isic9/ --from mine.json --out runs/mine
    """
    from dermalert.learn.recipes import RECIPES, recipe_named

    if name:
        click.echo(recipe_named(name).to_json())
        return
    for recipe in RECIPES.values():
        click.echo(f"{recipe.name:<18} {recipe.summary}")


@commands.command()
@click.argument("data", type=DATA)
@click.option("--out", type=OUT, required=True, help="Folder for study.html, study.json and the arms' run folders.")
@click.option(
    "--recipes",
    "names",
    default="plain,augmented,balanced,transfer",
    show_default=True,
    help="Names with commas between; balancing, augment-search and all stand for several.",
)
@click.option("--pool", multiple=True, type=DATA, help="Another data set that the arm `pooled` learns from as well.")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Trainings of each, other seeds.")
@click.option("--epochs", type=click.IntRange(1), help="At most so many an arm.")
@click.option(
    "--show-leak",
    is_flag=True,
    help="Train twice more with copies of every class: after the split, and before it as notebooks do.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted study, or add arms to a finished one.")
@click.option("--resamples", type=click.IntRange(100), default=1000, show_default=True, help="For the intervals.")
@_source_options
@_seed
@_as_json
def study(
    data: Path,
    out: Path,
    names: str,
    pool: tuple[Path, ...],
    repeats: int,
    epochs: int | None,
    seed: int,
    as_json: bool,
    show_leak: bool,
    **options: Any,
) -> None:
    """Train several recipes on one audited split and compare them on one page.

    Every arm sees the same training, validation and test pictures; differences from `plain` come with paired
    intervals. Each training runs in a process of its own, and one that fails is shown as failed.

    \b
    Example:
      dermalert study isic9/ --out study/
      dermalert study isic9/ --recipes all --pool ham10000/ --pool isic2017/ --show-leak --out study/
    """
    from dermalert.stages.study import Plan, expanded, run_study
    from dermalert.stages.telling import study_summary

    asked = expanded(names.split(","))
    plan = Plan(data, pool, asked, repeats, epochs, seed)
    found = run_study(plan, out, show_leak=show_leak, command=_typed(), made=_now(), **options)
    if as_json:
        click.echo((out / "study.json").read_text(encoding="utf-8"), nl=False)
        return
    for line in study_summary(found):
        click.echo(printable(line))
    click.echo(f"Read {printable(str(out / 'study.html'))}")


@commands.command()
@click.argument("data", type=DATA)
@click.option("--pool", "pools", multiple=True, type=DATA, help="Another data set to learn from; may be repeated.")
@click.option(
    "--others", type=DATA, help="A folder of pictures that are not dermoscopic, for the gate; sub-folders: sources."
)
@click.option("--out", type=OUT, required=True, help="Folder for the training, bundle/ and metrics.json.")
@click.option("--epochs", type=click.IntRange(1), help="In place of the recipe's: fewer for a trial.")
@click.option("--resume", is_flag=True, help="Go on after the last whole epoch.")
@click.option(
    "--framework",
    type=click.Choice(["tensorflow", "torch"]),
    default="tensorflow",
    show_default=True,
    help="What computes: TensorFlow on the processor, or PyTorch on a GPU where there is one.",
)
@click.option("--cache", type=OUT, help="Where decoded pictures are kept; default: decoded/ beside OUT.")
@click.option("--workers", type=click.IntRange(1), help="Decoding threads; default: one a core.")
@_as_json
def release(data: Path, out: Path, epochs: int | None, as_json: bool, **options: Any) -> None:
    """Make a bundle fit to ship: cross-fitted on several data sets, with figures for cameras it never saw.

    Each photograph is judged by a network that did not learn from its lesion, and each collection by one that learnt
    from none of it; a tenth of the lesions is held out. Hours on a CPU; --resume goes on where it stopped, with
    either framework.

    \b
    Example:
      dermalert release isic9/ --pool ham10000/ --pool isic2017/ --others photographs/ --out runs/release
    """
    from dataclasses import replace

    from dermalert.learn.recipes import RELEASE
    from dermalert.stages.release import run_release
    from dermalert.stages.telling import summary

    evaluations = run_release(
        data, out=out, recipe=replace(RELEASE, epochs=epochs or RELEASE.epochs), made=_now(), **options
    )
    if as_json:
        click.echo((out / "metrics.json").read_text(encoding="utf-8"), nl=False)
        return
    for line in summary(evaluations):
        click.echo(printable(line))
    click.echo(f"The bundle: {printable(str(out / 'bundle'))}")


@commands.command()
@click.argument("bundle", type=DATA)
@click.argument("data", type=DATA)
@click.option("--out", type=OUT, required=True, help="Folder for metrics.json, report.html and predictions.csv.")
@click.option(
    "--robustness", type=click.IntRange(0), default=0, metavar="N", help="Also judge N pictures, spoilt in 22 ways."
)
@click.option("--resamples", type=click.IntRange(100), default=1000, show_default=True, help="For the intervals.")
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.02,
    show_default=True,
    help="The share of melanomas among the lesions of a clinic, for its decision curve.",
)
@click.option("--masks", type=OUT, help="Folder of lesion masks: tells how much of the evidence lies inside.")
@_source_options
@_seed
@_as_json
def evaluate(bundle: Path, data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Judge a bundle on labelled pictures that it was not trained on.

    \b
    Example:
      dermalert evaluate runs/plain/bundle clinic-2/ --out clinic-2-report/
      dermalert evaluate runs/plain/bundle clinic-2/ --robustness 300 --out clinic-2-report/
    """
    from dermalert.stages.judging import run_evaluate
    from dermalert.stages.telling import summary

    evaluations = run_evaluate(bundle, data, out, command=_typed(), made=_now(), **options)
    _tell_figures(summary(evaluations), out, as_json)


@commands.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--bundle", type=DATA, help="The bundle/ folder of a training run; default: the model that ships.")
@click.option("--out", type=DATA, help="The file; of Parquet and of --engine ray, a folder; default: stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "parquet", "isic2018", "isic2019", "isic2020"]),
    help="Default: by the name of --out, or csv. The last three are submissions to the ISIC challenges.",
)
@click.option(
    "--operating-point", "point", metavar="NAME", help="Whose threshold decides; default: the bundle's first."
)
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The share of melanomas among the lesions you see; adjusts the probabilities, not the alerts.",
)
@click.option("--workers", type=click.IntRange(1), help="Decoding threads, or workers of Ray; default: one a core.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Pictures the model sees at once.")
@_cluster_options
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
def score(
    paths: tuple[str, ...],
    bundle: Path | None,
    out: Path | None,
    form: str | None,
    as_json: bool,
    batch: int,
    point: str | None,
    prevalence: float | None,
    workers: int | None,
    **where: Any,
) -> None:
    """Score pictures wherever they lie, and say which to refer.

    PATHS are pictures, folders, quoted patterns such as '2026-*/**/*.jpg', CSV lists, manifests, tar and zip
    archives, and addresses such as s3://bucket/new/. docs/inputs.md has them all.

    One row a picture; `alert` is `refer` or `none` at the bundle's operating point, `set` the diagnoses left open: made
    to hold the true one for nine of ten pictures of each kind, if they are like those fitted on. A file that cannot be
    used gets a row that says why, and the others go on.

    What is interrupted, the same command goes on with: OUT takes its name once it is whole, and until then OUT.part
    and OUT.progress.json stand beside it.

    Training sets hold far more melanomas than a clinic sees: with `--prevalence` the probabilities are those of your
    clinic, by Bayes' rule. That keeps the order of pictures, and every alert and set as it was: a threshold is one
    on the probability as calibrated.

    \b
    Example:
      dermalert score new-pictures/ --out alerts.csv
      dermalert score new-pictures/ --prevalence 0.02 --operating-point balanced --out alerts.csv
      dermalert score new-pictures/ --bundle runs/plain/bundle --out alerts.csv
      dermalert score "shards/{000..099}.tar" --out alerts.parquet
      dermalert score archive/ --engine ray --out alerts/
    """
    cluster = _cluster(workers=workers, **where)
    if cluster:
        from dermalert.stages.clustering import run_score_on_cluster

        if out is None or as_json or form not in (None, "parquet"):
            raise click.UsageError("--engine ray writes a folder of Parquet files: give --out, and no other format.")
        counts = run_score_on_cluster(paths, bundle, out, cluster, point=point, prevalence=prevalence)
    else:
        from dermalert.score.output import PARQUET, format_for
        from dermalert.stages.scoring import run_score

        if as_json and form not in (None, "jsonl"):
            raise click.UsageError(f"--json and --format {form} ask for two formats: give one.")
        form = "jsonl" if as_json else form or format_for(out)
        if out is not None and out.is_dir() and form != PARQUET:
            raise click.UsageError(f"--out: {printable(str(out))} is a folder. Name a file, or give --format parquet.")
        counts = run_score(
            paths, bundle, out, form=form, workers=workers, batch=batch, point=point, prevalence=prevalence
        )
    told = f"{counts['scored']} scored, {counts['refer']} to refer"
    told += f"; {counts['rejected']} rejected, {counts['error']} could not be read"
    click.echo(told + (f"; see {printable(str(out))}" if out else ""), err=True)


@commands.command()
@click.argument("paths", nargs=-1, required=True, type=DATA)
@click.option("--out", type=DATA, required=True, help="The PNG file; for several pictures, a folder.")
@click.option("--bundle", type=DATA, help="The bundle/ folder of a training run; default: the model that ships.")
@click.option("--class", "diagnosis", default="melanoma", show_default=True, help="The diagnosis that is asked about.")
@click.option("--mask", type=DATA, help="The lesion's mask, or a folder of masks named like their pictures.")
@_as_json
def explain(
    paths: tuple[Path, ...], out: Path, bundle: Path | None, diagnosis: str, mask: Path | None, as_json: bool
) -> None:
    """Show where in a picture the evidence for a diagnosis lies.

    Writes the picture beside its evidence map, made by the model's own graph, and says where most of the evidence
    lies. With a mask, also how much of it lies inside.

    \b
    Example:
      dermalert explain photo.jpg --out evidence.png
      dermalert explain new-pictures/ --class bcc --out maps/ --json
    """
    from dermalert.stages.explaining import run_explain

    for one in run_explain(paths, _bundle(bundle), out, diagnosis=diagnosis, mask=mask):
        if as_json:
            click.echo(json.dumps(one.to_json(), ensure_ascii=False))
        else:
            click.echo(printable(f"{one.path}: {one.words()}; see {one.file}"))


@commands.command()
@click.argument("picture", type=DATA)
@click.option("--among", type=DATA, required=True, help="A folder of pictures, a table or a manifest.")
@click.option("--k", type=click.IntRange(1), default=5, show_default=True, help="How many.")
@click.option("--out", type=FILE, help="An HTML page with the pictures.")
@click.option("--bundle", type=DATA, help="The bundle/ folder of a training run; default: the model that ships.")
@click.option("--index", type=OUT, help="Where features are kept for the next time; default: your cache folder.")
@click.option("--workers", type=click.IntRange(1), help="Decoding threads; default: one a core.")
@_as_json
def similar(picture: Path, among: Path, bundle: Path | None, index: Path | None, as_json: bool, **options: Any) -> None:
    """Find the pictures of a collection that the model sees as most like one picture.

    Compares with every picture there; the picture itself is left out. Features are computed once a picture and kept,
    so that the next question costs next to nothing.

    \b
    Example:
      dermalert similar photo.jpg --among archive/ --out similar.html
    """
    from dermalert.stages.similarity import kept_by_default, run_similar

    model = _bundle(bundle)
    found = run_similar(
        picture, among, model, index=index or kept_by_default(), command=_typed(), made=_now(), **options
    )
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
        return
    for case in found.cases:
        label = " or ".join(case.labels) or "no label"
        click.echo(printable(f"{case.similarity:.3f}  {label:<24} {case.paths[0]}"))
    if options["out"]:
        click.echo(f"Read {printable(str(options['out']))}")


@commands.command()
@click.option("--bundle", type=DATA, help="The bundle/ folder of a training run; default: the model that ships.")
@click.option("--out", type=FILE, help="The Markdown file; default: stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "hf"]),
    default="md",
    show_default=True,
    help="md: the text; hf: with the YAML above it that the Hugging Face Hub reads.",
)
def card(bundle: Path | None, out: Path | None, form: str) -> None:
    """Print a model's card: use, licences, data, figures, thresholds, limits.

    The code is under Apache-2.0; the weights have a licence of their own, which the card names.

    \b
    Example:
      dermalert card --out card.md
      dermalert card --bundle runs/plain/bundle --format hf --out README.md
    """
    from dermalert import page
    from dermalert.bundle.card import text_of

    whole = _bundle(bundle).card
    text = whole if form == "hf" else text_of(whole)
    if out:
        page.write(out, text)
        return
    for line in text.splitlines():
        click.echo(printable(line))


@commands.command()
@click.argument("page", type=FILE)
@click.option("--out", type=FILE, help="The PDF; default: beside the page, by its name.")
def pdf(page: Path, out: Path | None) -> None:
    """Print a page, such as report.html, as PDF on A4.

    PAGE is any page that Dermalert wrote. Takes the optional part [pdf].

    \b
    Example:
      dermalert pdf clinic-2-report/report.html
    """
    from dermalert.stages.printing import run_pdf

    click.echo(f"Wrote {printable(str(run_pdf(page, out)))}")


@commands.command()
@click.argument("out", type=OUT)
@click.option("--per-class", type=click.IntRange(1), default=20, show_default=True, help="Training pictures a class.")
@_seed
def draw(out: Path, per_class: int, seed: int) -> None:
    """Draw a data set of cartoon lesions, faults included, to try things on.

    \b
    Example:
      dermalert draw drawn/ --per-class 40
    """
    from dermalert.drawn import draw_class_folders

    drawn = draw_class_folders(out, per_class=per_class, seed=seed)
    click.echo(f"Drew {drawn.pictures} pictures in {printable(str(out))}")


@commands.command()
@click.option("--out", type=OUT, default=Path("demo-out"), show_default=True, help="Where everything is written.")
@_seed
@click.option(
    "--serve/--no-serve", default=None, help="Open the worklist at the end, until Ctrl-C; default: on a terminal."
)
def demo(out: Path, seed: int, serve: bool | None) -> None:
    """The whole way on pictures it draws itself: audit, train, evaluate, score, worklist.

    \b
    Example:
      dermalert demo --out demo-out
    """
    from dermalert.demo import run_demo, serve_demo

    for line in run_demo(out, seed=seed, made=_now()):
        click.echo(printable(line))
    if serve or (serve is None and sys.stdin.isatty() and sys.stdout.isatty()):
        serve_demo(out, lambda line: click.echo(printable(line)))


for each in clinic_commands:
    commands.add_command(each)


def _bundle(folder: Path | None) -> Bundle:
    from dermalert.bundle.format import Bundle

    return Bundle.load(folder) if folder else Bundle.shipped()


def _tell_figures(lines: list[str], out: Path, as_json: bool) -> None:
    if as_json:
        content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        click.echo(json.dumps(content, indent=1))
        return
    for line in lines:
        click.echo(printable(line))
    click.echo(f"Read {printable(str(out / 'report.html'))}")


def _typed() -> str:
    # It ends on the pages: a tracking server's address may hold a password.
    return re.sub(r"mlflow=\S+", "mlflow=…", "dermalert " + shlex.join(sys.argv[1:]))


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
