"""Entry point: commands, exit codes, errors as one paragraph instead of a traceback."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hsi_batch._version import __version__
from hsi_batch.cli import (
    checks,
    clusters,
    convert,
    demo,
    detect,
    doctor,
    drift,
    evaluate,
    export,
    labels,
    library,
    masks,
    provenance,
    quicklook,
    repair,
    restore,
    slices,
    stages,
    status,
    stores,
    top,
    train,
    view,
)
from hsi_batch.cli.signals import interruptible
from hsi_batch.cli.warned import warnings_as_lines
from hsi_batch.errors import HsiBatchError
from hsi_batch.wording import printable

__all__ = ["app", "main"]

_INTERRUPTED = 130
_CONTINUE = "interrupted; what is written stays. Run the same command again to continue."

app = typer.Typer(
    name="hsi-batch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hyperspectral archives on Dask: convert, fit from exact statistics, score every pixel.",
    epilog="Exit codes: 0 done; 1 some frames failed; 2 wrong usage, nothing started; 3 the store"
    " is in use or damaged; 130 interrupted, safe to run again.",
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"hsi-batch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--plugins",
            metavar="NAME",
            help="Let pipeline files import node classes of this package; repeatable.",
        ),
    ] = None,
) -> None:
    del version
    # The environment, for processes that this one starts.
    names = [os.environ.get("HSI_BATCH_PLUGINS", ""), *(plugins or [])]
    if plugins:
        os.environ["HSI_BATCH_PLUGINS"] = ",".join(filter(None, names))


demo.register(app)
detect.register(app)
stages.register(app)
convert.register(app)
stores.register(app)
labels.register(app)
masks.register(app)
export.register(app)
evaluate.register(app)
provenance.register(app)
quicklook.register(app)
repair.register(app)
status.register(app)
library.register(app)
checks.register(app)
clusters.register(app)
slices.register(app)
drift.register(app)
train.register(app)
restore.register(app)
view.register(app)
top.register(app)
doctor.register(app)


def main() -> None:
    """Run the command line; exits with the code of the run."""
    try:
        with interruptible(), warnings_as_lines():
            app()
    except SystemExit as error:
        # The framework turns Ctrl-C into this code.
        if error.code == _INTERRUPTED:
            _say(_CONTINUE)
        raise
    except HsiBatchError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say(_CONTINUE)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (| head).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # The last resort: never a traceback unasked.
        if os.environ.get("HSI_BATCH_TRACEBACK"):
            raise
        _say(
            f"unexpected {type(error).__name__}: {error}. This is a defect of hsi_batch; please"
            " report it. Set HSI_BATCH_TRACEBACK=1 to see where it happened."
        )
        sys.exit(1)


def _say(text: str) -> None:
    sys.stderr.write(printable(f"hsi-batch: {text}\n"))
