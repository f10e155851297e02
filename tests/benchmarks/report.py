"""What every result says of itself: the command, the machine, the date."""

import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    today = datetime.date.today()
    return f"{os.cpu_count()} cores of {cpu}, Python {platform.python_version()}, {today}"


def write(name: str, title: str, command: str, body: Iterable[str]) -> None:
    """Print a report, and keep it in results/NAME.md; a `## Decision` that stands there already stays."""
    path = RESULTS / f"{name}.md"
    text = "\n".join([f"# {title}", "", f"`python tests/benchmarks/{command}`", "", machine(), "", *body, ""])
    print(text)
    _, decision, reasons = path.read_text().partition("\n## Decision") if path.exists() else ("", "", "")
    RESULTS.mkdir(exist_ok=True)
    path.write_text(text + decision + reasons)
