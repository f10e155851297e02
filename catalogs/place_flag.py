"""A flag that names a place: a path, or a URL of S3."""

from pathlib import Path
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from catalogs.object_path import ObjectPath
from catalogs.place import Place, place

PlaceFlag = Annotated[
    Place,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: place(words[0]),
        is_instance=lambda value: isinstance(value, Path | ObjectPath),
        str_from_instance=lambda value: [str(value)],
    ),
]
