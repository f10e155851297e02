"""Notes on a tile for people, a line each, in its log."""

import contextlib
import time

from catalogs import atomic
from catalogs.object_path import ObjectPath
from catalogs.place import Place

UPLOAD_SECONDS = 30.0
"""Between two uploads of a log on S3: an object cannot grow, and is written anew."""


class Notes:
    """The log of a tile."""

    def __init__(self, path: Place):
        self.path = path
        self.lines: list[str] | None = None
        """Of a log on S3; None: not read yet."""
        self.uploaded, self.changed = 0.0, False

    def write(self, line: str) -> None:
        """Add a line."""
        if not isinstance(self.path, ObjectPath):
            with atomic.naming(self.path), self.path.open("a") as log:
                print(line, file=log)
            return
        if self.lines is None:
            self.lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.lines.append(line)
        self.changed = True
        if time.monotonic() - self.uploaded > UPLOAD_SECONDS:
            self.close()

    def close(self) -> None:
        """Upload what is not yet; a log that cannot be is no reason to stop."""
        if self.changed and self.lines is not None:
            self.uploaded, self.changed = time.monotonic(), False
            with contextlib.suppress(OSError), atomic.replacing(self.path) as temporary:
                temporary.write_text("\n".join(self.lines) + "\n")
