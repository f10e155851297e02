"""`mmae COMMAND`: find the command, run it, turn errors into exit codes.

A command is a frozen dataclass (its fields are the flags, its docstrings the help) and a `main` that takes
one; both stand in the module of the command, which is imported only when it is called. So all that can go
wrong, imports included, comes by `exit_code`.
"""

import contextlib
import errno
import functools
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, TextIO

from catalogs.errors import InputRefused, Interrupted, UsageError
from mmae.flags import parse

OK, USAGE, REFUSED, INTERRUPTED, IO_FAILED = 0, 2, 3, 4, 5
IMPOSSIBLE_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of the disk that are there whenever the same command is given."""


class Command(NamedTuple):
    module: str
    config: str
    summary: str
    extra: str = ""
    """Extra of the distribution that it needs."""


COMMANDS = {
    "mock": Command(
        "catalogs.mock.survey", "Mock", "write a mock survey: training pairs, and a tile", "mock"
    ),
    "crossmatch": Command("catalogs.crossmatch.command", "Crossmatch", "join GalaxiesML with DESI spectra"),
    "ingest": Command("catalogs.ingest", "Ingest", "turn GalaxiesML HDF5 into a cutout store (sharded Zarr)"),
    "cutouts": Command(
        "catalogs.cutting.command", "Cutouts", "cut coadds, or collect FITS cutouts, into a cutout store"
    ),
    "store": Command(
        "catalogs.store.command", "Store", "show what is in a cutout store, verify it, draw a preview"
    ),
    "train": Command("mmae.train", "Train", "train on a cutout store with spectra and redshifts"),
    "export": Command("mmae.export", "Export", "turn a checkpoint into a model bundle for inference"),
    "recalibrate": Command(
        "mmae.recalibrate", "Recalibrate", "fit the p(z) of a bundle to your own redshifts"
    ),
    "infer": Command("mmae.infer", "Infer", "write the photo-z catalogue of a cutout store"),
    "embed": Command("mmae.embed", "Embed", "write the embedding of every galaxy of a cutout store"),
    "index": Command(
        "catalogs.similarity.index_command",
        "Index",
        "index the embeddings of many tiles, to search them in milliseconds",
        "similarity",
    ),
    "neighbours": Command(
        "catalogs.similarity.command",
        "Neighbours",
        "find and draw the galaxies most like others by their embeddings",
    ),
    "hats": Command(
        "catalogs.products.hats_catalogue", "Hats", "write catalogues as one for LSDB (HATS)", "hats"
    ),
    "qp": Command(
        "catalogs.products.qp_ensemble", "Qp", "write the p(z) of catalogues for qp and RAIL", "qp"
    ),
    "status": Command("mmae.status", "Status", "show how a training, a tile or a folder of tiles stands"),
    "reconstruct": Command("mmae.reconstruct", "Reconstruct", "draw hidden images and spectra rebuilt"),
    "reproduce": Command("mmae.reproduce", "Reproduce", "measure what the paper shows and left open"),
    "report": Command(
        "mmae.report", "Report", "make one page of HTML on catalogues: what they hold, and whether to believe"
    ),
    "compare": Command("mmae.compare", "Compare", "say what changed between two catalogues, and why"),
    "evaluate": Command("mmae.evaluate", "Evaluate", "measure photo-z against spectroscopic redshifts"),
}

NO_MEMORY = re.compile(r"can't allocate memory|CUDA out of memory")
"""Of the RuntimeErrors of torch, on a CPU and on a GPU."""
STDOUT = "standard output"

HELP = """usage: mmae COMMAND [flags], mmae --version

From survey pixels to photo-z catalogues.

{commands}

`mmae COMMAND --help` explains a command; `--config FILE.toml` reads its flags from a file.
Exit codes: 0 done, 2 usage, 3 input refused, 4 interrupted, 5 input/output failure; after 4
and 5, run the same command again."""


def run(main: Callable[[Any], None], config_type: type, argv: Sequence[str], prog: str) -> int:
    """Parse the flags, run the command, return the exit code."""
    return exit_code(lambda: main(parse(config_type, argv, prog)), prog)


def run_module(command: Command, argv: Sequence[str], prog: str) -> int:
    """Import the module of a command, then as `run`."""

    def work() -> None:
        module = imported(command)
        Stop.work_has_begun = True
        module.main(parse(getattr(module, command.config), argv, prog))

    return exit_code(work, prog)


def imported(command: Command) -> Any:
    """The module of a command. Raises UsageError where something that it needs is not installed."""
    try:
        return importlib.import_module(command.module)
    except ImportError as error:
        distribution = f"mmae-survey[{command.extra}]" if command.extra else "mmae-survey"
        raise UsageError(f"{error}: pip install '{distribution}'") from error


def exit_code(work: Callable[[], None], prog: str) -> int:
    """Run `work`, return the exit code; errors that a user can mend are one sentence on stderr.

    What nobody foresaw keeps its traceback: it is a fault of ours.
    """
    try:
        work()
        sys.stdout.flush()
    except UsageError as error:
        return _fail(prog, error, USAGE)
    except InputRefused as error:
        return _fail(prog, error, REFUSED)
    except (Interrupted, KeyboardInterrupt) as error:
        return _fail(prog, str(error) or "interrupted", INTERRUPTED)
    except OSError as error:
        return disk_failure(prog, error)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or NO_MEMORY.search(str(error))):
            raise
        reason = str(error).partition("\n")[0]
        return _fail(prog, f"out of memory ({reason}): ask for less at a time", IO_FAILED)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich ends the process over one
            return disk_failure(prog, stop.__context__)
        raise
    return OK


def disk_failure(prog: str, error: OSError) -> int:
    """Say what failed, and return the exit code."""
    if error.filename == STDOUT:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or what is buffered would fail again at the end
        if isinstance(error, BrokenPipeError):  # as by `| head`, which has seen enough
            return IO_FAILED
    return _fail(prog, error, USAGE if error.errno in IMPOSSIBLE_NAMES else IO_FAILED)


def _fail(prog: str, error: object, code: int) -> int:
    """Say an error in one line, whatever characters are in it; after a Stop that was swallowed, that."""
    if Stop.was_raised and code != INTERRUPTED:
        error, code = "interrupted", INTERRUPTED
    line = " ".join(f"{prog}: {error}".split())
    with contextlib.suppress(OSError):  # nobody listens
        print("".join(c if c.isprintable() else repr(c)[1:-1] for c in line), file=sys.stderr)
    return code


def run_command(name: str, argv: Sequence[str]) -> int:
    """Run the command `name` of COMMANDS."""
    return run_module(COMMANDS[name], argv, f"mmae {name}")


class Output(io.TextIOWrapper):
    """The standard output: it takes any text, whatever the encoding, and its errors bear its name."""

    @classmethod
    def of(cls, stream: TextIO | None) -> TextIO:
        """In the place of `stream`, which is None where it was closed before the start (`>&-`)."""
        if stream is None:
            return Path(os.devnull).open("w", encoding="utf-8")
        assert isinstance(stream, io.TextIOWrapper)
        output = cls(stream.buffer, stream.encoding, "backslashreplace")
        output.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
        return output

    def write(self, text: str) -> int:
        with named_errors():
            return super().write(text)

    def flush(self) -> None:
        with named_errors():
            super().flush()


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = STDOUT
        raise


STOPS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class Stop(KeyboardInterrupt):
    """Ctrl-C, SIGTERM, or SIGHUP, as when a terminal is closed.

    Where one of the class KeyboardInterrupt itself passes through `exec`, as while classes are made, Python
    ends itself by SIGINT in the end, whatever the exit code.
    """

    was_raised: ClassVar[bool] = False
    """Modules swallow one while they import others, which are incomplete then, and fail in any way."""
    work_has_begun: ClassVar[bool] = False
    """Whether there is anything to be undone by an exception on its way up."""


def stop(prog: str, *_: object) -> NoReturn:
    """Handler of signals: ends the process while modules are imported, whose callbacks lose exceptions."""
    Stop.was_raised = True
    if not Stop.work_has_begun:
        os._exit(_fail(prog, "interrupted", INTERRUPTED))
    raise Stop


def end_with(run: Callable[[], int], prog: str) -> NoReturn:
    """End this process with the exit code of `run`. STOPS are Ctrl-C, from the first moment on."""
    try:
        for number in STOPS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as of a job in the background, or under nohup
                signal.signal(number, functools.partial(stop, prog))
        sys.stdout, sys.stderr = Output.of(sys.stdout), sys.stderr or Output.of(None)
        code = run()
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)  # there is nothing left to stop
    except BaseException as error:
        if not (Stop.was_raised or isinstance(error, KeyboardInterrupt)):
            raise
        code = _fail(prog, "interrupted", INTERRUPTED)
    sys.exit(code)


def start(module: str, config: str, extra: str = "") -> NoReturn:
    """Be the program `python -m MODULE`."""
    command = Command(module, config, "", extra)
    prog = f"python -m {module}"
    end_with(lambda: run_module(command, sys.argv[1:], prog), prog)


def choose(argv: Sequence[str]) -> int:
    """Run the command that the command line names."""
    if argv and argv[0] in COMMANDS:
        return run_command(argv[0], argv[1:])
    return exit_code(lambda: show_help(argv), "mmae")


def show_help(argv: Sequence[str]) -> None:
    """Show what commands there are. Raises UsageError where none of them was named."""
    if argv and argv[0] == "--version":
        from mmae import __version__

        print(f"mmae-survey {__version__}")
        return
    if argv and argv[0] not in ("-h", "--help"):
        raise UsageError(f"no command {argv[0]!r}; there are: {', '.join(COMMANDS)}")
    width = max(map(len, COMMANDS))
    rows = (f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    print(HELP.format(commands="\n".join(rows)))
    if not argv:
        raise UsageError("no command was named")


def main() -> NoReturn:
    end_with(lambda: choose(sys.argv[1:]), "mmae")


if __name__ == "__main__":
    main()
