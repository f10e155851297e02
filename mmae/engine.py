"""A model bundle at work: redshifts of images, in batches whose shape never changes.

The last bits of a row depend on the shape of the batch it is in. The tail of a block is filled up, and then
they depend on the row alone.
"""

import itertools
from dataclasses import astuple

import numpy as np
import torch
from torch import Tensor, nn

from mmae.bundle import FP32, Bundle
from mmae.image_mask import WHOLE, visible_tokens
from mmae.model import ModelConfig


def engine_of_this_process(bundle: Bundle, batch: int) -> "Engine":
    """On the GPU this process was given, or on one core."""
    if torch.cuda.is_available():
        return Engine(bundle, torch.device("cuda"), batch)
    torch.set_num_threads(1)
    return Engine(bundle, torch.device("cpu"), batch)


class Engine:
    """The program of a bundle on a device: images in, redshifts out.

    A row has the same bytes whatever rows it is asked for with, on the same hardware and software. One that
    leaves the range of reduced precision is computed again in float32.
    """

    def __init__(self, bundle: Bundle, device: torch.device, batch: int):
        self.device, self.batch, self.masking = device, batch, bundle.masking
        self.program: nn.Module = bundle.load(device)
        self.exact: nn.Module | None = None if bundle.precision == FP32 else bundle.load(device, FP32)
        self.upload = Upload(device, batch) if device.type == "cuda" else None

    def redshifts(self, image: np.ndarray, object_id: np.ndarray) -> np.ndarray:
        """Redshifts (m,) float32 of images (m, 5, 64, 64) float32 without NaN, and ids (m,) int64."""
        spans = [slice(start, start + self.batch) for start in range(0, len(image), self.batch)]
        outputs = [self.run(self.program, rows, image, object_id) for rows in spans]
        redshift = np.empty(len(image), np.float32)
        for rows, output in zip(spans, outputs, strict=True):  # only here a GPU is waited for
            redshift[rows] = output.cpu().numpy()[: len(image[rows])]
            lost = ~np.isfinite(redshift[rows])
            if self.exact is not None and lost.any():
                again = self.run(self.exact, rows, image, object_id).cpu().numpy()
                redshift[rows][lost] = again[: len(lost)][lost]
        return redshift

    @torch.inference_mode()
    def run(self, program: nn.Module, rows: slice, image: np.ndarray, object_id: np.ndarray) -> Tensor:
        """Redshifts (batch,) of some rows, on the device; what fills the batch up has one too."""
        pixels = torch.from_numpy(self.filled(image[rows]))
        pixels = self.upload(pixels) if self.upload else pixels
        if self.masking == WHOLE:
            return program(pixels)
        ids, (ratio, draws, seed) = self.filled(object_id[rows]), astuple(self.masking)
        drawn = (visible_tokens(ids, ModelConfig().image_tokens, ratio, draw, seed) for draw in range(draws))
        outputs = [program(pixels, torch.from_numpy(visible).to(self.device)) for visible in drawn]
        return torch.stack(outputs).mean(0)

    def filled(self, rows: np.ndarray) -> np.ndarray:
        """Rows, and zeros after them up to a whole batch."""
        if len(rows) == self.batch:
            return rows
        whole = np.zeros((self.batch, *rows.shape[1:]), rows.dtype)
        whole[: len(rows)] = rows
        return whole


class Upload:
    """Copies batches to a GPU on a stream of its own, so that one travels while another is computed.

    There are two buffers of pinned memory, filled in turn, each when the copy out of it is done.
    """

    def __init__(self, device: torch.device, batch: int):
        shape = (batch, ModelConfig.bands, ModelConfig.image_size, ModelConfig.image_size)
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.buffers = itertools.cycle(
            (torch.empty(shape, pin_memory=True), torch.cuda.Event()) for _ in range(2)
        )

    def __call__(self, rows: Tensor) -> Tensor:
        pinned, copied = next(self.buffers)
        copied.synchronize()
        pinned.copy_(rows)
        with torch.cuda.stream(self.stream):
            pixels = pinned.to(self.device, non_blocking=True)
            copied.record()
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(copied)
        pixels.record_stream(computing)  # its memory is not to be used anew before it was computed with
        return pixels
