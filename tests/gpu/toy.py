"""Galaxies that take nothing but numpy to draw, a store of them, and a bundle of random weights."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from catalogs.bands import HSC
from catalogs.store import cutouts
from catalogs.store.format import SIZE
from mmae.bundles import compiler
from mmae.bundles.sample import noise_sample
from mmae.models.mmae import Model
from mmae.models.mmae_config import ModelConfig

NOISE, Z_MAX = 0.05, 1.5
"""Of the sky a pixel; redshifts are even from 0 to Z_MAX."""
DRAWN = 512
"""Rows drawn at a time."""


def galaxies(start: int, stop: int) -> dict[str, np.ndarray]:
    """Rows start:stop: round profiles whose colours are waves in redshift, with noise. Always the same."""
    first = start // DRAWN * DRAWN
    parts = [_block(number) for number in range(first, stop, DRAWN)]
    wanted = slice(start - first, stop - first)
    return {name: np.concatenate([part[name] for part in parts])[wanted] for name in parts[0]}


def _block(start: int) -> dict[str, np.ndarray]:
    """The rows from `start` on, so many as are drawn at a time."""
    rng, rows = np.random.default_rng([7, start]), DRAWN
    z = rng.uniform(0, Z_MAX, rows)
    phase = 2.5 * np.arange(len(HSC)) + 4 * z[:, None]
    flux = 10 ** rng.normal(1.0, 0.3, (rows, 1)) * 2 ** np.sin(phase)  # (m, bands)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    width = rng.uniform(2, 4, rows)[:, None, None]
    shape = np.exp(-0.5 * (x**2 + y**2) / width**2) / (2 * np.pi * width**2)
    image = rng.standard_normal((rows, len(HSC), SIZE, SIZE), np.float32)
    image *= NOISE
    image += (flux[:, :, None, None] * shape[:, None]).astype(np.float32)
    ids = np.arange(start, start + rows)
    return {"image": image, "object_id": ids, "ra": ids % 360 / 1.0, "dec": np.zeros(rows), "redshift": z}


def write_store(path: Path, n: int, float16: bool = False, shard_rows: int = 4096) -> Path:
    """A store of the first n galaxies, with their redshifts: one to infer on, and one to train on."""
    cutouts.write(
        path,
        galaxies,
        n=n,
        survey="toy",
        bands=HSC,
        known=["redshift"],
        float16=float16,
        shard_rows=shard_rows,
    )
    return path


def write_bundle(path: Path, config: ModelConfig) -> Path:
    """A bundle of random weights: rates do not depend on them, nor on how far bf16 is from fp32."""
    trained: Mapping[str, object] = {
        "survey": "toy",
        "bands": HSC,
        "pixel_scale": 0.168,
        "zero_point": 27.0,
        "noise": [NOISE] * len(HSC),
        "flux_percentiles": {},
        "z_range": [0.0, Z_MAX],
    }
    compiler.BOUND = dict.fromkeys(compiler.BOUND, float("inf"))
    torch.manual_seed(0)
    model = Model(config).eval()
    model.noise.fill_(NOISE)
    with torch.no_grad():  # or p(z) would be that of photometry alone
        model.head[2].weight.normal_(0, 0.02)
    state = {"config": {"model": asdict(config)}, "data": dict(trained), "metrics": {}, "step": 0}
    compiler.write_bundle(path, model, state, noise_sample(len(HSC), 64, 64))
    return path
