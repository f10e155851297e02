"""A flag that names a place: a path, or a URL of S3."""

from pathlib import Path
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from catalogs.errors import UsageError
from catalogs.object_path import ObjectPath
from catalogs.place import Place, place


def _read(word: str) -> Place:
    """The place; a URL that is none is left as it is: mmae/flags.py says in a sentence what is wrong."""
    try:
        return place(word)
    except UsageError:
        return Path(word)


PlaceFlag = Annotated[
    Place,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: _read(words[0]),
        is_instance=lambda value: isinstance(value, Path | ObjectPath),
        str_from_instance=lambda value: [str(value)],
    ),
]
