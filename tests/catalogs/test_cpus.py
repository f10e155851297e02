"""CPUs are counted by the time that control groups allow, too."""

import os

import pytest

from catalogs import cpus as module
from catalogs.cpus import cpus, quotas

TREES = {
    "version 2, in a container": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
        [1.5],
    ),
    "version 2, a group and one above it": (
        {
            "proc/self/cgroup": "0::/system.slice/job_7\n",
            "sys/fs/cgroup/system.slice/job_7/cpu.max": "max 100000\n",
            "sys/fs/cgroup/system.slice/cpu.max": "400000 100000\n",
        },
        [4.0],
    ),
    "version 1": (
        {
            "proc/self/cgroup": "9:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        [0.5],
    ),
    "version 1, in a container, which sees its own group as the root": (
        {
            "proc/self/cgroup": "1:cpu:/kubepods/pod1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        [2.0],
    ),
    "no bound": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, []),
    "no groups": ({}, []),
}


@pytest.mark.parametrize(("files", "expected"), TREES.values(), ids=TREES)
def test_quotas_of_either_version_are_found(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert list(quotas(tmp_path)) == expected


def test_the_least_bound_counts(monkeypatch):
    affinity = len(os.sched_getaffinity(0))
    for found, expected in (([], affinity), ([0.3], 1), ([999.0], affinity)):
        monkeypatch.setattr(module, "quotas", lambda found=found: iter(found))
        assert cpus() == expected
