"""The flags of a command: a dataclass is filled from the command line, a TOML file and a preset."""

import contextlib
import dataclasses
import io
import itertools
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catalogs.errors import UsageError
from catalogs.object_path import ObjectPath
from catalogs.place import place
from catalogs.regular_file import refuse_special


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


def take_all(flag: str, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The values of a flag up to the next flag, and the rest of the command line."""
    value, rest = take(flag, argv)
    if value is None:
        return [], rest
    if flag not in argv:  # --flag=value
        return [value], rest
    after = argv[argv.index(flag) + 1 :]
    values = list(itertools.takewhile(lambda word: not word.startswith("-"), after)) or [value]
    return values, [*argv[: argv.index(flag)], *after[len(values) :]]


def with_file(argv: Sequence[str]) -> list[str]:
    """The command line, followed by the flags of the TOML file of `--config` that it does not have itself.

    Raises UsageError where there is no such file, or no TOML in it.
    """
    path, given = take("--config", argv)
    if path is None:
        return given
    try:
        refuse_special(Path(path))
        table = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {path} cannot be read: {error}") from None
    on_command_line = set(map(name, given))
    return [*given, *(word for flag in flags(table) if name(flag[0]) not in on_command_line for word in flag)]


def with_preset(config_type: Any, argv: Sequence[str]) -> tuple[Any, list[str]]:
    """The defaults that --preset NAME stands for, where the command has presets, and the other flags.

    What such a command works on may be called --data: a file of flags has names only.
    """
    if not hasattr(config_type, "preset"):
        return None, list(argv)
    preset, given = take("--preset", argv)
    data, given = take_all("--data", given)
    return config_type.preset(preset, data), given


def without_flags(config_type: Any) -> list[str]:
    """The command line that an empty one stands for: the file of flags that lies there, if any does."""
    file = getattr(config_type, "config_file", None)
    return ["--config", str(file)] if file and file.exists() else []


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
    default, given = with_preset(config_type, with_file(argv or without_flags(config_type)))
    for word in given:
        if word == "" or re.fullmatch(r"--[^=]+=", word):
            raise UsageError(f"{word or 'an argument'} is empty: is a variable of the shell not set?")
    if any("\0" in word for word in given):
        raise UsageError("a flag has a zero byte in it, as no name of a file can")
    try:
        with contextlib.redirect_stderr(errors):
            config = tyro.cli(config_type, args=given, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        raise UsageError(f"{first_of_box(text)} ({prog} --help explains)") from None
    refuse_urls(config)
    return config


def refuse_urls(config: Any) -> None:
    """Raise UsageError where a URL stands in the place of a path; what may lie on S3 is no Path by now."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):
                refuse_urls(item)
            elif isinstance(item, Path) and isinstance(where := place(item), ObjectPath):
                raise UsageError(
                    f"{where} is on S3, but {field.name} must be in a file system: copy it from there, or to "
                    "there when it is done, with aws s3 cp --recursive, a store with its .manifest.json"
                )


def first_of_box(text: str) -> str:
    """What a box of tyro's says is wrong: the part above its first rule, below its title; in one line.

    A terminal without box characters gets dashes, and the title in a line of its own.
    """
    lines = [line.strip(" │|") for line in text.splitlines() if not line.startswith(("╭", "╰"))]
    if len(lines) > 1 and lines[1].startswith("---"):
        lines = lines[2:]
    said = itertools.takewhile(lambda line: not line.startswith(("──", "---")), lines)
    return " ".join(filter(None, said))
