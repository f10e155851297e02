"""Random kills: an inference run loses its driver, an actor, the raylet or the head of Ray, again and again.

    python tests/benchmarks/soak_kills.py STORE BUNDLE [--minutes 10] [--seed 0]

Each run is killed at random moments, and given again until it has finished. Its products must be those of an
undisturbed run, and of all runs no process and no file may be left. Prints a table and writes
results/soak_kills.md.
"""

import argparse
import contextlib
import random
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import report
from infer_runs import actors, command, descendants, digests

from catalogs import atomic
from mmae import cli
from mmae.production.ray_session import PREFIX, STARTING_SECONDS, started

VICTIMS = ("driver", "actor", "raylet", "head")
NAMES = {"raylet": "raylet", "head": "gcs_server"}
LATEST_SECONDS = 25.0
"""A kill comes at a moment up to so long after the start."""
CALM = 0.15
"""Share of starts that nothing disturbs."""
MAY_FAIL = (cli.OK, cli.INTERRUPTED, cli.IO_FAILED, -9)
"""How a disturbed run may end."""


def victim(process: subprocess.Popen, kind: str) -> psutil.Process | None:
    """A process of that kind, if there is one by now."""
    if kind == "driver":
        return psutil.Process(process.pid)
    if kind == "actor":
        return next(iter(actors(process)), None)
    with contextlib.suppress(psutil.NoSuchProcess):
        return next((each for each in descendants(process) if each.name() == NAMES[kind]), None)
    return None


def disturbed(infer: list[str], rng: random.Random, seen: list[psutil.Process]) -> tuple[int, str]:
    """Start once, and kill a process; returns the exit code and what was killed."""
    killed = ""
    with subprocess.Popen(infer, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        driver = psutil.Process(process.pid)
        if rng.random() > CALM:
            deadline, kind = time.monotonic() + rng.uniform(0, LATEST_SECONDS), rng.choice(VICTIMS)
            while process.poll() is None and not killed:
                seen += [each for each in (driver, *descendants(process)) if each not in seen]
                found = victim(process, kind) if time.monotonic() > deadline else None
                if found:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found.kill()
                        killed = kind
                time.sleep(0.05)
        words = process.stderr.read()
        code = process.wait()
    assert code in MAY_FAIL, (killed, code, words)
    assert "Traceback" not in words, (killed, words)
    return code, killed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    rng, counts, seen = random.Random(flags.seed), Counter[str](), list[psutil.Process]()
    root = Path(tempfile.mkdtemp())
    subprocess.run([*command(flags.store, flags.bundle), "--out", str(root / "calm")], check=True)
    expected = digests(root / "calm")
    started_at = time.monotonic()
    while time.monotonic() - started_at < 60 * flags.minutes:
        out = root / f"run{counts['runs']}"
        code = -1
        while code != cli.OK:
            code, killed = disturbed([*command(flags.store, flags.bundle), "--out", str(out)], rng, seen)
            counts["starts"] += 1
            counts[killed or "nothing"] += 1
            print(counts["runs"], counts["starts"], killed or "nothing", code, flush=True)
        assert digests(out) == expected, out
        assert not list(out.rglob(f"*{atomic.TEMPORARY}"))
        counts["runs"] += 1
    time.sleep(STARTING_SECONDS + 5)
    with started(1):  # sweeps what killed drivers left
        pass
    _, alive = psutil.wait_procs(seen, timeout=60)
    assert not alive, alive
    sessions = (Path("/tmp").glob(f"{PREFIX}*/ray/session_*_{process.pid}") for process in seen)
    assert not (left := [folder for found in sessions for folder in found]), left
    killed = ", ".join(f"{name} {counts[name]}" for name in VICTIMS)
    body = [
        f"{counts['runs']} runs in {counts['starts']} starts over {flags.minutes:g} minutes.",
        f"Killed with -9 at random moments: {killed}; left alone: {counts['nothing']} starts.",
        f"Every catalogue is that of the undisturbed run (sha256 {expected[0][:12]}).",
        "No process, no temporary file and no folder of Ray was left.",
    ]
    usage = f"soak_kills.py STORE BUNDLE --minutes {flags.minutes:g}"
    report.write("soak_kills", "Random kills", usage, body)


if __name__ == "__main__":
    main()
