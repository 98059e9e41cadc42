"""The `reid-zoo` command."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer

from .._version import __version__
from ..errors import ReIDZooError
from . import console
from .conversion_commands import convert
from .dataset_commands import datasets
from .demo import demo
from .evaluation_commands import compare, evaluate
from .gallery_commands import index, search
from .model_commands import models
from .occlusion_commands import occlude
from .training_commands import recipes, train

__all__ = ["app", "main"]

app = typer.Typer(
    name="reid-zoo",
    help="Find a person in images from a description. Start with: reid-zoo demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_INTERRUPTED = 130


def _print_version(value: bool) -> None:
    if value:
        print(f"reid-zoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["REID_ZOO_DEBUG"] = "1"


for command in (demo, index, search, train, evaluate, compare, convert, recipes, models, occlude):
    app.command()(command)
app.add_typer(datasets, name="datasets")


def main() -> None:
    """Run the command line; every failure ends as one line on stderr and a non-zero exit status."""
    console.write_any_text()
    console.quiet_libraries()
    console.show_warnings_as_notes()
    # ClickException, wherever this version of typer keeps it
    usage_error: type[Any] = typer.BadParameter.__mro__[2]
    try:
        status = app(standalone_mode=False) or 0
        if status == _INTERRUPTED:  # typer turns Ctrl-C into this status and says nothing
            raise KeyboardInterrupt
        sys.exit(status)
    except usage_error as error:
        console.leave_errors_to_the_first_process()
        error.show()
        sys.exit(error.exit_code)
    except console.Interrupted as interruption:
        _say_interrupted(str(interruption))
    except (KeyboardInterrupt, typer.Abort):
        _say_interrupted("what was finished is kept, run the same command again to continue.")
    except (ReIDZooError, OSError, MemoryError) as error:
        if os.environ.get("REID_ZOO_DEBUG"):
            traceback.print_exc()
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        console.error(console.describe_error(error))
        sys.exit(1)


def _say_interrupted(what_is_kept: str) -> NoReturn:
    if console.is_first_process():  # Ctrl-C reaches all of them
        console.error(f"interrupted; {what_is_kept}")
    sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
