"""The command line: run a study, check its parameters, see how far it came."""

import contextlib
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clca_utils import runner
from clca_utils.choices import Dtype
from clca_utils.files import UNWRITABLE, StudyError, shown, unwritable, write_text

if TYPE_CHECKING:
    import pandas as pd

    from clca_utils.items import SurveyItem

HELP = "CLCA: a study of culture adaptation of language models, from parameters to figures."
app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
model = typer.Typer(help="The embedded model.", no_args_is_help=True)
app.add_typer(model, name="model")
survey = typer.Typer(
    help="What people answered, and answers from anywhere scored by it.", no_args_is_help=True
)
app.add_typer(survey, name="survey")
release = typer.Typer(
    help="Scenarios and dialogues in the form of the published release.", no_args_is_help=True
)
app.add_typer(release, name="release")
adapter = typer.Typer(help="A trained adapter, made ready for others.", no_args_is_help=True)
app.add_typer(adapter, name="adapter")

Params = Annotated[str, typer.Argument(help="A study's YAML file, or its name in params/.")]
Results = Annotated[Path, typer.Option(help="Where run folders are.")]
Items = Annotated[
    Path | None, typer.Option(help="Another wording of the items (YAML or question_metadata.json).")
]

EMD_TITLE = "Earth mover's distance of WorldValuesBench"


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """End with a sentence instead of a traceback where the user can mend it or interrupted it."""
    try:
        yield
    except StudyError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        place = shown(Path(str(error.filename))) if error.filename else "A file of the results"
        typer.echo(unwritable(error.strerror or "", place), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted: run the same command again to go on.", err=True)
        raise typer.Exit(130) from None


@app.command()
def run(
    params: Params,
    results: Results = runner.RESULTS,
    only: Annotated[
        str, typer.Option(help="One step alone, as in german/smollm2-135m/seed-1/04_fine_tuning.")
    ] = "",
) -> None:
    """Run a study; what is finished and unchanged is skipped."""
    with plainly():
        runner.run(params, results, only=only)


@app.command(context_settings={"allow_extra_args": True})
def grid(
    context: typer.Context,
    params: Params,
    results: Results = runner.RESULTS,
    profile: Annotated[
        str, typer.Option(help="Where it runs: default, slurm, kubernetes, or a folder of yours.")
    ] = "default",
) -> None:
    """Run a study's grid on Snakemake; behind --, arguments of its own, such as --dry-run."""
    from clca_utils import grid as snakemake  # noqa: PLC0415

    with plainly():
        raise typer.Exit(snakemake.run(params, results, profile, context.args))


@app.command()
def check(
    params: Params,
    results: Results = runner.RESULTS,
    elsewhere: Annotated[bool, typer.Option(help="It shall run on another machine.")] = False,
) -> None:
    """Check a study's parameters; print what a run would do and need; refuse what cannot fit."""
    from clca_utils import limits  # noqa: PLC0415

    with plainly():
        study, steps = runner.prepared(params, results)
        forecast = list(runner.forecast(steps))
        runs = len({step.folder for step in steps if step.stage.name == "05_wvs_analysis"})
        skipped = sum(skip for _, skip in forecast)
        typer.echo(f"{study.name}: runs: {runs}, stages: {len(steps)}, to be skipped: {skipped}")
        for folder, rows in groupby(forecast, key=lambda row: row[0].folder):
            states = (f"{step.stage.number} {'skip' if skip else 'run'}" for step, skip in rows)
            typer.echo(f"  {shown(folder)}: {', '.join(states)}")
        left = [step for step, skip in forecast if not skip]
        if left and not elsewhere:
            host = limits.this_machine(results)
            need = limits.needs(steps, left, host)
            typer.echo(limits.in_words(need, host))
            if told := limits.misfits(left, host, need, results):
                raise StudyError("\n".join(told) + "\nFor another machine: check with --elsewhere.")


@app.command()
def calibrate() -> None:
    """Print how fast this machine multiplies matrices, as JSON: kept beside shipped studies."""
    from clca_utils import limits  # noqa: PLC0415

    typer.echo(json.dumps({"gflops": round(limits.multiplication_rate())}))


@app.command()
def status(
    params: Annotated[str, typer.Argument(help="A study, to see its grid; empty: all.")] = "",
    results: Results = runner.RESULTS,
) -> None:
    """Show how far a study's grid is, or how far each run folder of all studies came."""
    from rich.console import Console  # noqa: PLC0415 (as the others: only where it is needed)

    from clca_utils import progress  # noqa: PLC0415
    from clca_utils.grid import expected  # noqa: PLC0415

    with plainly():
        if params:
            _, steps = runner.prepared(params, results)
            times = expected(steps)
            table, told = progress.of_study(steps, times)
            Console().print(table)
            for line in told:
                typer.echo(line)
        else:
            Console().print(progress.of_all(results.absolute()))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder.")],
    second: Annotated[Path, typer.Argument(help="Another's.")],
) -> None:
    """Show in which parameters and metrics two runs differ."""
    from clca_utils import differences  # noqa: PLC0415

    with plainly():
        folders = first.absolute(), second.absolute()
        changed = differences.parameter_differences(*folders)
        measured = differences.metric_differences(*folders)
        for table, what in ((changed, "parameter"), (measured, "metric")):
            typer.echo(f"{len(table)} {what}s differ" + (":" if len(table) else "."))
            if len(table):
                _show(table)


@app.command()
def report(
    study: Annotated[
        str, typer.Argument(help="A study's results folder, as in results/demo, or the study.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; report.html in the folder.")
    ] = None,
) -> None:
    """Write a study's figures, tables and origin into one HTML file, to read or mail."""
    from clca_utils.html_report import write_report  # noqa: PLC0415

    with plainly():
        folder = Path(study)
        if not folder.is_dir():
            folder = runner.RESULTS / runner.prepared(study, runner.RESULTS)[0].name
        written = write_report(folder, out)
        typer.echo(f"{shown(written)}: {written.stat().st_size / 1e6:.1f} MB")


@model.command()
def prepare() -> None:
    """Convert the embedded model, once; runs do this by themselves when they need it."""
    from clca_utils import embedded  # noqa: PLC0415 (only needed here)

    with plainly():
        typer.echo(embedded.prepare())


@model.command("warm-up")
def warm_up(
    folder: Annotated[Path | None, typer.Argument(help="Where to write; clca_utils/data.")] = None,
) -> None:
    """Train the adapter that teaches the embedded model plays: half a day on two cores."""
    from clca_utils import warmup  # noqa: PLC0415 (slow to import, only needed here)

    with plainly():
        log = warmup.warm_up(folder or warmup.FOLDER)
        typer.echo(f"{folder or shown(warmup.FOLDER)}: loss {log['loss'].iloc[-10:].mean():.2f}")


@survey.command("check")
def survey_check(
    file: Annotated[Path, typer.Argument(help="Microdata, or a csv of countries' shares.")],
    items: Items = None,
) -> None:
    """Tell what a file of people's answers holds and what can be compared with it."""
    from clca_utils import microdata  # noqa: PLC0415 (as below: only needed here)
    from clca_utils.items import load_items  # noqa: PLC0415

    with plainly():
        asked = _all_items(items)
        source = file.absolute()
        if microdata.kind_of(source) == "aggregates":
            table = _coverage(source, asked)
            people = f"the shares of {len(table)} countries, but no single people to be asked as"
            count = f"{len(load_items('values'))} items (those of the cultural map apart)"
        else:
            count = f"{len(asked)} items"
            table = microdata.file_report(source, asked)
            table["missing_items"] = [_few(names) for names in table["missing_items"]]
            people = f"{table['respondents'].sum():,} respondents of {len(table)} countries"
        _show(table)
        typer.echo(
            f"{shown(source)} holds {people}; of the {count} {table['items'].min()} to "
            f"{table['items'].max()} can be compared, depending on the country."
        )


@survey.command("score")
def survey_score(
    answers: Annotated[
        Path, typer.Argument(help="A csv of QUESTION_ID, PARTICIPANT_ID and SCORE.")
    ],
    respondents: Annotated[
        Path | None,
        typer.Option(help="The people: microdata or a csv of shares; the shipped shares without."),
    ] = None,
    country: Annotated[str, typer.Option(help="Three letters; only its people count.")] = "",
    out: Annotated[Path | None, typer.Option(help="Where to write the table as a csv.")] = None,
    items: Items = None,
) -> None:
    """Score answers, from whatever model, by the people's."""
    from clca_utils import scoring  # noqa: PLC0415
    from clca_utils.measures import MEASURES  # noqa: PLC0415
    from clca_utils.survey import load_survey  # noqa: PLC0415

    with plainly():
        asked = _all_items(items)
        iso3 = country.strip().upper()
        scores = scoring.read_scores(answers.absolute())
        known = load_survey(respondents.absolute() if respondents else "", asked)
        table = scoring.score_answers(scores, scoring.choose_people(known, asked, iso3), asked)
        summary = scoring.score_summary(scores, known, asked, iso3)
        typer.echo(scoring.whose_note(scores, known, asked, iso3))
        some = {"js_distance": "JS distance", scoring.EMD: "EMD", "accuracy": "accuracy"}
        some |= {"closeness": "closeness"}
        normalised = {scoring.NORMALISED: "JS score"}
        lines = summary[["line", "detail", *some, *normalised]]
        _show(lines.rename(columns=some | normalised))
        typer.echo(
            "JS score: 0 is as far from the people as uniform, 1 as near as the human floor."
        )
        titles = {name: one.title for name, one in MEASURES.items()}
        titles |= {"accuracy": "Accuracy", "closeness": "Closeness", scoring.EMD: EMD_TITLE}
        better = {name: one.better for name, one in MEASURES.items()}
        few_lines = ["answers", "human floor", "uniform", "majority"]
        means = summary.set_index("line").loc[few_lines, [*MEASURES, scoring.EMD]]
        measures = means.astype(float).T.rename_axis("measure").reset_index()
        measures.insert(1, "better", measures["measure"].map(better).fillna("lower"))
        _show(measures.replace({"measure": titles}))
        _show(table[["qid", "answered", "invalid", *some]].rename(columns=some))
        answered, invalid, unmatched = table[["answered", "invalid", "unmatched"]].sum()
        unknown = len(scores) - answered - invalid - unmatched
        strangers = (
            ""
            if known.people is None
            else f"{unmatched} without an answer of the participant's own, "
        )
        typer.echo(
            f"{len(scores)} answers: {answered} compared (items: {(table['answered'] > 0).sum()}), "
            f"{invalid} invalid, {strangers}{unknown} to items that are unknown or without data."
        )
        if thin := int(table["answered"].between(1, scoring.FEW_ANSWERS - 1).sum()):
            typer.echo(
                f"Note: {thin} of the items have fewer than {scoring.FEW_ANSWERS} answers; so few "
                "lie further from anyone than their population does."
            )
        if out:
            write_text(out.absolute(), table.to_csv(index=False))
            typer.echo(f"The table is in {shown(out.absolute())}.")


@release.command("export")
def release_export(
    run_folder: Annotated[Path, typer.Argument(help="With scenarios.jsonl and what followed it.")],
    target: Annotated[Path, typer.Argument(help="Where to write; nothing is overwritten.")],
) -> None:
    """Write a run's scenarios, its kept dialogues and their intents as the release does."""
    from clca_utils.release import export_run  # noqa: PLC0415

    with plainly():
        typer.echo(export_run(run_folder.absolute(), target.absolute()))


@release.command("import")
def release_import(
    source: Annotated[
        Path, typer.Argument(help="A folder with the release's scenarios.jsonl, dialogues.jsonl.")
    ],
    run_folder: Annotated[Path, typer.Argument(help="Where to write; nothing is overwritten.")],
    culture: Annotated[str, typer.Option(help="Its culture: a name in params/cultures or a path.")],
) -> None:
    """Make a run folder of the release's lines, for stages 02 to 04 to go on from."""
    from clca_utils.release import import_run  # noqa: PLC0415

    with plainly():
        typer.echo(import_run(source.absolute(), run_folder.absolute(), culture))


@adapter.command("export")
def adapter_export(
    run_folder: Annotated[Path, typer.Argument(help="With adapter/ and manifest.json.")],
    target: Annotated[Path, typer.Argument(help="Where to write; nothing is overwritten.")],
    merged: Annotated[bool, typer.Option("--merged", help="The whole model, merged.")] = False,
    dtype: Annotated[
        Dtype, typer.Option(help="Of a merged model; a short one may round an adapter away.")
    ] = "float32",
) -> None:
    """Write an adapter to a folder that peft, transformers and vLLM load, with a model card."""
    from clca_utils.export import export_adapter  # noqa: PLC0415

    with plainly():
        typer.echo(
            export_adapter(run_folder.absolute(), target.absolute(), merged=merged, dtype=dtype)
        )


@adapter.command("shrink")
def adapter_shrink(
    folder: Annotated[Path, typer.Argument(help="A copy of a study's results, written over.")],
) -> None:
    """Round all adapters below a folder to bf16, half their size, to pass them on."""
    from clca_utils.export import shrink_adapters  # noqa: PLC0415

    with plainly():
        typer.echo(shrink_adapters(folder.absolute()))


def _all_items(path: Path | None) -> "list[SurveyItem]":
    """Return every item of the survey, in the user's wording if there is one."""
    from clca_utils.items import load_items  # noqa: PLC0415

    return load_items("all", path=path.absolute() if path else "")


def _coverage(source: Path, items: "list[SurveyItem]") -> "pd.DataFrame":
    """Return a row per country of a file of shares: how many items have data of which trust.

    The items of the cultural map that aren't among the survey's 44 are counted apart: they are
    seldom in a file of shares, which is no defect of it.
    """
    import pandas as pd  # noqa: PLC0415

    from clca_utils.items import load_items  # noqa: PLC0415
    from clca_utils.survey import coverage, load_marginals  # noqa: PLC0415

    marginals = load_marginals(source, items)
    countries = sorted(set(marginals["country"]))
    parts = pd.concat([coverage(marginals, one, items).assign(country=one) for one in countries])
    parts["value"] = parts["qid"].isin([item.qid for item in load_items("values")])
    compared = parts[parts["status"].str.startswith("compared")]
    values, mapped = compared[compared["value"]], compared[~compared["value"]]
    asked = parts[parts["value"]]
    report = pd.crosstab(asked["country"], asked["status"])
    count = values.groupby("country").size()
    report.insert(0, "items", count.reindex(countries, fill_value=0))
    more = f"map items of {len(set(parts.loc[~parts['value'], 'qid']))}"
    report[more] = mapped.groupby("country").size().reindex(countries, fill_value=0)
    tiers = compared.groupby("country")["tier"].agg(lambda tiers: ", ".join(sorted(set(tiers))))
    report["tiers"] = tiers
    return report.fillna({"tiers": ""}).reset_index()


def _show(table: "pd.DataFrame") -> None:
    """Print a frame."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    cells = table.map(lambda x: f"{x:.3f}" if isinstance(x, float) else str(x)).replace("nan", "")
    grid = Table(*map(str, table.columns))
    for row in cells.to_numpy():
        grid.add_row(*row)
    Console().print(grid)


def _few(names: str, most: int = 6) -> str:
    """Return a list of names, cut where it's long."""
    first = names.split(", ")
    return names if len(first) <= most else f"{', '.join(first[:most])}, … ({len(first)})"
