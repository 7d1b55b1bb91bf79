"""The command line: run a study, check its parameters, see how far it came."""

import contextlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from clca_utils import runner
from clca_utils.files import StudyError, shown

HELP = "CLCA: a study of culture adaptation of language models, from parameters to figures."
app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
model = typer.Typer(help="The embedded model.", no_args_is_help=True)
app.add_typer(model, name="model")

Params = Annotated[str, typer.Argument(help="A study's YAML file, or its name in params/.")]
Results = Annotated[Path, typer.Option(help="Where run folders are.")]


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """End with a sentence instead of a traceback where the user can mend it or interrupted it."""
    try:
        yield
    except StudyError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted: run the same command again to go on.", err=True)
        raise typer.Exit(130) from None


@app.command()
def run(params: Params, results: Results = runner.RESULTS) -> None:
    """Run a study; what is finished and unchanged is skipped."""
    with plainly():
        runner.run(params, results)


@app.command()
def check(params: Params, results: Results = runner.RESULTS) -> None:
    """Check a study's parameters and print what a run would do."""
    with plainly():
        study, steps = runner.prepared(params, results)
        forecast = list(runner.forecast(steps))
        runs = len(study.cultures) * len(study.models) * len(study.seeds)
        skipped = sum(skip for _, skip in forecast)
        typer.echo(f"{study.name}: runs: {runs}, stages: {len(steps)}, to be skipped: {skipped}")
        for folder, rows in groupby(forecast, key=lambda row: row[0].folder):
            states = (f"{step.stage.name[:2]} {'skip' if skip else 'run'}" for step, skip in rows)
            typer.echo(f"  {shown(folder)}: {', '.join(states)}")


@app.command()
def status(results: Results = runner.RESULTS) -> None:
    """Show how far each run folder came."""
    from rich.console import Console  # noqa: PLC0415 (as the others: only where it is needed)

    with plainly():
        Console().print(runner.status(results.absolute()))


@model.command()
def prepare() -> None:
    """Convert the embedded model, once; runs do this by themselves when they need it."""
    from clca_utils import embedded  # noqa: PLC0415 (only needed here)

    with plainly():
        typer.echo(embedded.prepare())
