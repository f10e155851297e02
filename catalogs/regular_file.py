"""Files that are files: opening a FIFO waits for ever, and a device has no end."""

import stat

from catalogs.errors import InputRefused
from catalogs.object_path import ObjectPath
from catalogs.place import Place

KINDS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_special(path: Place) -> None:
    """Raise InputRefused where something is at `path` that is neither a file nor a folder.

    Nothing is opened. A path with nothing there passes: who opens it says so. On S3 there is nothing else.
    """
    if isinstance(path, ObjectPath):
        return
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if kind := KINDS.get(stat.S_IFMT(mode)):
        raise InputRefused(f"{path} is {kind}, not a file: copy the data into a file, and name that")
