"""How many CPUs this process may use: containers bound the time on CPUs, which Python does not count."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cpus() -> int:
    """CPUs of the affinity mask, or fewer where a control group bounds the time on them (1.5 count as 2)."""
    return min([len(os.sched_getaffinity(0)), *map(math.ceil, quotas())])


def quotas(root: Path = Path("/")) -> Iterator[float]:
    """CPUs' worth of time that each control group of this process allows, where it bounds it.

    The groups are those of /proc/self/cgroup, of version 2 (`0::/path`) or 1 (`4:cpu,cpuacct:/path`), and all
    above them, as far as they can be seen from inside a container.
    """
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                yield from _quota(folder)


def _quota(group: Path) -> Iterator[float]:
    if (group / "cpu.max").exists():
        time, period = (group / "cpu.max").read_text().split()
        if time != "max":
            yield int(time) / int(period)
    elif (group / "cpu.cfs_quota_us").exists():
        time, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(time) > 0:  # else -1
            yield int(time) / int(period)
