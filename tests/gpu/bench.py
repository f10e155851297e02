"""The inputs of the measurements, their sizes, and the device."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
import toy

from mmae.bundles.bundle import open_bundle
from mmae.bundles.engine import Engine, device_of_this_process
from mmae.bundles.image_mask import WHOLE
from mmae.models.mmae_config import ModelConfig

TINY = ModelConfig(embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1, bins=60)
FULL = {
    "objects": 32768,
    "batches": (64, 512, 2048, 4096, 8192),
    "batch": 2048,
    "side": 8192,
    "readers": (1, 2, 4, 8),
    "galaxies": 16384,
    "training_batch": 1024,
    "steps": 20,
    "seconds": 1.0,
    "learning_seconds": 120.0,
}
SMALL = FULL | {
    "objects": 384,
    "batches": (64, 128),
    "batch": 128,
    "side": 256,
    "readers": (1, 2),
    "galaxies": 320,
    "training_batch": 32,
    "steps": 2,
    "seconds": 0.05,
    "learning_seconds": 2.0,
}


class Bench:
    """The inputs, the device, and how long each measurement may take."""

    def __init__(self, folder: Path, tiny: bool):
        self.folder, self.size = folder, SMALL if tiny else FULL
        self.config = TINY if tiny else ModelConfig()
        self.device = device_of_this_process()
        self.bundle = toy.write_bundle(folder / "bundle", self.config)
        self.stores = {
            kind: toy.write_store(folder / f"{kind}.zarr", self.size["objects"], kind == "float16")
            for kind in ("float32", "float16")
        }

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rate(self, work: Callable[[], object], number: int) -> float:
        """Things a second, of work that does a number of them; after two that do not count."""
        for _ in range(2):
            work()
        self.wait()
        began, turns = time.perf_counter(), 0
        while time.perf_counter() - began < self.size["seconds"]:
            work()
            turns += 1
            self.wait()
        return number * turns / (time.perf_counter() - began)

    def engine(self, precision: str, batch: int) -> Engine:
        return Engine(open_bundle(self.bundle, precision, WHOLE), self.device, batch)  # type: ignore[arg-type]
