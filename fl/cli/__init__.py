"""The command `secagg`: builds the application, runs it, and turns errors into one sentence and an exit code.

Belongs here: the list of commands, the entry point, what every command does about errors. What a command does
belongs in `fl/cli/<command>.py`, which has a function, or a group of commands, of its own name and imports whatever is
heavy inside its functions, so that `secagg --help` imports none of it. Printing is in `fl/cli/output.py`.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import click
import typer
from typer import Option

from fl.cli import output

COMMANDS = (
    "init",
    "run",
    "plan",
    "epsilon",
    "audit",
    "tradeoff",
    "report",
    "verify",
    "keys",
    "data",
    "choose",
    "doctor",
)
"""Commands in the order of the help page, and their modules."""


HELP = "Privacy layers for federated learning: masked sums, homomorphic sums, differential privacy."


def distribution_version() -> str:
    """The version of this toolkit as it is installed, or a note that it is not."""
    try:
        return version("secagg-toolkit")
    except PackageNotFoundError:
        return "unknown (runs from a checkout that is not installed)"


def build_app(only: str | None = None) -> typer.Typer:
    """The application with every command, or with the one command named `only` (a faster start)."""
    app = typer.Typer(
        name="secagg",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",  # a help text that says [x] means it
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=HELP)(_root)
    for name in COMMANDS if only is None else (only,):
        command = getattr(importlib.import_module(f"fl.cli.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `secagg`. Leaves with 0 (done), 1 (the run failed) or 2 (the request was wrong)."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    raise SystemExit(invoke(arguments))


def invoke(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; every error becomes one sentence on standard error."""
    as_json = "--json" in arguments
    only = arguments[0] if arguments[0] in COMMANDS else None
    try:
        code = build_app(only)(args=list(arguments), prog_name="secagg", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (
        Exception,
        KeyboardInterrupt,
        click.Abort,
    ) as error:  # the last frame: what leaves it is a traceback
        if os.environ.get("SECAGG_TRACEBACK"):
            raise
        code, sentence = explain(error)
        output.fail(sentence, as_json)
        return code


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence for an error: 2 where the request was wrong, 1 where it failed."""
    from protocols.errors import MissingExtra, Misuse, SecAggError
    from protocols.extras import extra_of, sentence

    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "secagg"
        return 2, f"{error.format_message()} See `{command} --help`."
    if isinstance(error, click.ClickException):
        return 1, error.format_message()
    if isinstance(error, Misuse | MissingExtra):
        return 2, _with_notes(error)
    if isinstance(error, SecAggError):
        return 1, _with_notes(error)
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error.name or "")):
        return 2, sentence(extra, str(error.name), "This command")
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 1, "Interrupted. What was saved before is whole."
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return 1, f"{error.strerror or error or type(error).__name__}{where}."
    kind = type(error).__name__
    return 1, f"Unexpected {kind}: {error} Set SECAGG_TRACEBACK=1 to see where; please report it."


def _with_notes(error: BaseException) -> str:
    """The message, and what is for this machine's reader alone."""
    return " ".join([str(error), *getattr(error, "__notes__", ())])


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"secagg {distribution_version()}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Takes the options that stand before a command; with it, even a single command keeps its name."""
