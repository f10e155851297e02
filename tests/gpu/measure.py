"""What a GPU makes of this: one run of under eight minutes, one JSON.

    python tests/gpu/measure.py --out gpu.json          on a GPU
    python tests/gpu/measure.py --tiny --out cpu.json   all of the same code in a minute, on any machine

It needs a Python with torch and numpy, beside them zarr, astropy, astropy-healpix and tyro with what these
need (24 MB of wheels), but neither Ray nor scipy. A measurement that fails leaves its traceback in the
place of its numbers, and the others go on. The JSON is written anew after each.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
WITHOUT = {"scipy": (), "scipy.spatial": ("KDTree", "cKDTree"), "scipy.special": ("gammaincinv",)}
"""What is imported of scipy, 40 MB, and not used by what is measured."""
if importlib.util.find_spec("scipy") is None:
    for name, members in WITHOUT.items():
        sys.modules[name] = importlib.util.module_from_spec(ModuleSpec(name, None))
        vars(sys.modules[name]).update(dict.fromkeys(members, lambda *_: None))

import inference  # noqa: E402
import training  # noqa: E402
from bench import Bench  # noqa: E402

MEASUREMENTS: dict[str, Callable[[Bench], Any]] = {
    "machine": inference.machine,
    "model": inference.model,
    "catalogue_objects_per_s": inference.catalogue,
    "reading_objects_per_s": inference.reading,
    "identity_of_bytes": inference.identity,
    "error_against_cpu": inference.accuracy,
    "training_samples_per_s": training.rates,
    "learning": training.learning,
    "cuda_graph_objects_per_s": inference.graphs,  # last: what fails in a capture may spoil what comes after
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.tiny)
        results["seconds"] = {"inputs": time.perf_counter() - began}
        for name, measure in MEASUREMENTS.items():
            started = time.perf_counter()
            try:
                results[name] = measure(bench)
            except Exception:  # noqa: BLE001 - the card is lent for minutes: the others go on
                results[name] = traceback.format_exc()
            results["seconds"][name] = time.perf_counter() - started
            options.out.write_text(json.dumps(results, indent=1))
            print(name, json.dumps(results[name], indent=1), flush=True)
    print(f"wrote {options.out}, in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
