"""The command line ``pecrs``: the whole flow from data to a conversation, without a notebook.

The top of the package: nothing imports it. Each command lives in a module of its own, and imports
torch and the library when it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pecrs_lib import __version__
from pecrs_lib.cli import chat, data, evaluate, pretrain, rate, recommend, reproduce, serve, train
from pecrs_lib.cli.terminal import DEBUG, Commands, show

app = typer.Typer(
    name="pecrs",
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Conversational recommendation as language processing: PECRS (EACL 2024).

    \b
    A first round on INSPIRED, as the paper's authors prepared it:
      pecrs data download inspired-pecrs --cache data
      cd data/inspired-pecrs
      pecrs evaluate --baselines --format pecrs --catalogue movie_db \\
        --train train_data_processed --test test_data_processed
      pecrs train --format pecrs --catalogue movie_db --out run \\
        --train train_data_processed --valid dev_data_processed
      pecrs evaluate --checkpoint run --format pecrs --test test_data_processed
      pecrs chat --checkpoint run

    Errors are one line on stderr, with exit status 2 when you can do something about it.""",
)


@app.callback(invoke_without_command=True)
def _pecrs(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks of errors.")] = False,
) -> None:
    if version:
        show(__version__)
    elif context.invoked_subcommand is None:
        show(context.get_help())


app.add_typer(data.app, name="data")
for _module in (pretrain, train, evaluate, recommend, chat, serve, reproduce):
    app.command()(getattr(_module, _module.__name__.rpartition(".")[2]))
app.add_typer(rate.app, name="rate")


def main() -> None:
    """Entry point of the ``pecrs`` script."""
    app()
