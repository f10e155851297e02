"""`mmae COMMAND`: find the command, parse its flags, run it, turn errors into exit codes.

A command is a frozen dataclass (its fields are the flags, its docstrings the help) and a `main` that takes
one; both stand in the module of the command, which is imported only when it is called.
"""

import contextlib
import importlib
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from catalogs.errors import InputRefused, Interrupted, UsageError

OK, USAGE, REFUSED, INTERRUPTED, IO_FAILED = 0, 2, 3, 4, 5


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
    "store": Command(
        "catalogs.store.command", "Store", "show what is in a cutout store, verify it, draw a preview"
    ),
    "train": Command("mmae.train", "Train", "train on a cutout store with spectra and redshifts"),
    "export": Command("mmae.export", "Export", "turn a checkpoint into a model bundle for inference"),
    "infer": Command("mmae.infer", "Infer", "write the photo-z catalogue of a cutout store"),
    "embed": Command("mmae.embed", "Embed", "write the embedding of every galaxy of a cutout store"),
    "neighbours": Command(
        "catalogs.products.neighbours",
        "Neighbours",
        "find and draw the galaxies most like others by their embeddings",
    ),
    "status": Command("mmae.status", "Status", "show how a training, a tile or a folder of tiles stands"),
    "reconstruct": Command("mmae.reconstruct", "Reconstruct", "draw hidden images and spectra rebuilt"),
    "reproduce": Command("mmae.reproduce", "Reproduce", "measure what the paper shows and left open"),
    "evaluate": Command("mmae.evaluate", "Evaluate", "measure photo-z against spectroscopic redshifts"),
}

HELP = """usage: mmae COMMAND [flags]

From survey pixels to photo-z catalogues.

{commands}

`mmae COMMAND --help` explains a command; `--config FILE.toml` reads its flags from a file.
Exit codes: 0 done, 2 usage, 3 input refused, 4 interrupted, 5 input/output failure; after 4
and 5, run the same command again."""


def take(flag: str, argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of a flag, as `--flag value` or `--flag=value`, and the rest of the command line."""
    for k, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2], [*argv[:k], *argv[k + 1 :]]
        if word == flag:
            if k + 1 == len(argv):
                raise UsageError(f"{flag} needs a name")
            return argv[k + 1], [*argv[:k], *argv[k + 2 :]]
    return None, list(argv)


def with_file(argv: Sequence[str]) -> list[str]:
    """The command line, followed by the flags of the TOML file of `--config` that it does not have itself.

    Raises UsageError where there is no such file, or no TOML in it.
    """
    path, given = take("--config", argv)
    if path is None:
        return given
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path} cannot be read: {error}") from None
    on_command_line = set(map(name, given))
    return [*given, *(word for flag in flags(table) if name(flag[0]) not in on_command_line for word in flag)]


def with_preset(config_type: Any, argv: Sequence[str]) -> tuple[Any, list[str]]:
    """The defaults that --preset NAME stands for, where the command has presets, and the other flags."""
    if not hasattr(config_type, "preset"):
        return None, list(argv)
    preset, given = take("--preset", argv)
    return config_type.preset(preset), given


def name(flag: str) -> str:
    """--image_mask=0.5 -> --image-mask; --no-preview -> --preview."""
    return re.sub(r"(--|\.)no-", r"\1", flag.partition("=")[0].replace("_", "-"))


def flags(table: dict[str, Any], prefix: str = "--") -> Iterator[list[str]]:
    """A TOML table as flags, each with its values: `depth` under [model] is --model.depth."""
    for key, value in table.items():
        key = key.replace("_", "-")
        if isinstance(value, dict):
            yield from flags(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            yield [f"{prefix}{'' if value else 'no-'}{key}"]
        elif isinstance(value, list):
            yield [f"{prefix}{key}", *map(str, value)]
        else:
            yield [f"{prefix}{key}={value}"]


def parse(config_type: type, argv: Sequence[str], prog: str) -> Any:
    """Read flags into `config_type`; a wrong one raises UsageError with one line."""
    import tyro

    errors = io.StringIO()
    default, given = with_preset(config_type, with_file(argv))
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(config_type, args=given, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        box = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        lines = [line.strip(" │|") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
        message = []
        for line in lines:
            if line.startswith("──"):  # what follows the rule is a copy of the help
                break
            message.append(line)
        raise UsageError(f"{' '.join(filter(None, message))} ({prog} --help explains)") from None


def run(main: Callable[[Any], None], config_type: type, argv: Sequence[str], prog: str) -> int:
    """Parse the flags, run the command, return the exit code."""
    return exit_code(lambda: main(parse(config_type, argv, prog)), prog)


def exit_code(work: Callable[[], None], prog: str) -> int:
    """Run `work`, return the exit code; errors that a user can mend are one sentence on stderr."""
    try:
        work()
    except UsageError as error:
        return _fail(prog, error, USAGE)
    except InputRefused as error:
        return _fail(prog, error, REFUSED)
    except (Interrupted, KeyboardInterrupt) as error:
        return _fail(prog, str(error) or "interrupted", INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return IO_FAILED
    except OSError as error:
        return _fail(prog, error, IO_FAILED)
    return OK


def _fail(prog: str, error: object, code: int) -> int:
    print(f"{prog}: {error}", file=sys.stderr)
    return code


def run_command(name: str, argv: Sequence[str]) -> int:
    """Run the command `name` of COMMANDS."""
    command = COMMANDS[name]
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if not command.extra:
            raise
        return _fail(f"mmae {name}", f"{error}: pip install 'mmae-survey[{command.extra}]'", USAGE)
    return run(module.main, getattr(module, command.config), argv, f"mmae {name}")


def main() -> int:
    argv = sys.argv[1:]
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        rows = (f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
        print(HELP.format(commands="\n".join(rows)))
        return OK if argv else USAGE
    if argv[0] not in COMMANDS:
        return _fail("mmae", f"no command {argv[0]!r}; there are: {', '.join(COMMANDS)}", USAGE)
    return run_command(argv[0], argv[1:])


if __name__ == "__main__":
    sys.exit(main())
