"""A model bundle at work: what it says of images, in batches whose shape never changes.

The last bits of a row depend on the shape of the batch it is in. The tail of a block is filled up, and then
they depend on the row alone.
"""

import itertools
from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import torch
from torch import Tensor, nn

from catalogs.cutout_format import BANDS, SIZE
from mmae import columns, summary
from mmae.bundle import FP32, Bundle
from mmae.families import config_of
from mmae.image_mask import WHOLE, visible_tokens
from mmae.output import Estimate
from mmae.patches import IMAGE_TOKENS
from mmae.pdf import Grid

Say = Callable[[Estimate, np.ndarray], Tensor]
"""What is asked of the estimates of a batch, and of its ids: (B, C)."""


def engine_of_this_process(bundle: Bundle, batch: int) -> "Engine":
    return Engine(bundle, device_of_this_process(), batch)


def device_of_this_process() -> torch.device:
    """The GPU it was given, or one core."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(1)
    return torch.device("cpu")


class Engine:
    """The program of a bundle on a device: images in, columns of the catalogue or embeddings out.

    A row has the same bytes whatever rows it is asked for with, on the same hardware and software. One that
    leaves the range of reduced precision is computed again in float32.
    """

    def __init__(self, bundle: Bundle, device: torch.device, batch: int):
        self.device, self.batch, self.masking = device, batch, bundle.masking
        self.grid = Grid(**bundle.card["grid"]) if bundle.card["grid"] else None
        self.joint_dim = config_of(bundle.card["family"], bundle.card["model_config"]).joint_dim
        self.program: nn.Module = bundle.load(device)
        self.exact: nn.Module | None = None if bundle.precision == FP32 else bundle.load(device, FP32)
        self.upload = Upload(device, batch) if device.type == "cuda" else None

    def table(self, image: np.ndarray, object_id: np.ndarray) -> np.ndarray:
        """What the model says of images (m, 5, 64, 64) float32 without NaN, and ids (m,) int64.

        Gives (m, C) float32; columns.named knows which column is what.
        """
        width = sum(columns.SHAPE.values()) if self.grid else 2
        return self.answers(image, object_id, self.summary, width)

    def joint(self, image: np.ndarray, object_id: np.ndarray) -> np.ndarray:
        """The joint representations (m, J) float32 of the same."""
        return self.answers(image, object_id, lambda estimate, ids: estimate.joint, self.joint_dim)

    def answers(self, image: np.ndarray, object_id: np.ndarray, say: Say, width: int) -> np.ndarray:
        """What `say` makes of the estimates, (m, width)."""
        spans = [slice(start, start + self.batch) for start in range(0, len(image), self.batch)]
        outputs = [self.run(self.program, rows, image, object_id, say) for rows in spans]
        said = np.empty((len(image), width), np.float32)
        for rows, output in zip(spans, outputs, strict=True):  # only here a GPU is waited for
            answer = output.cpu().numpy()[: len(image[rows])]
            lost = answer[:, -1] == 0
            if self.exact is not None and lost.any():
                again = self.run(self.exact, rows, image, object_id, say).cpu().numpy()
                answer = np.where(lost[:, None], again[: len(lost)], answer)
            said[rows] = answer[:, :-1]
        return said

    @torch.inference_mode()
    def run(
        self, program: nn.Module, rows: slice, image: np.ndarray, object_id: np.ndarray, say: Say
    ) -> Tensor:
        """What is said of some rows, on the device, and last whether all is finite: (batch, C + 1)."""
        pixels = torch.from_numpy(filled(image[rows], self.batch))
        ids = filled(object_id[rows], self.batch)
        pixels = self.upload(pixels) if self.upload else pixels
        estimate = self.masked(program, pixels, ids) if self.masking != WHOLE else program(pixels)
        estimate = Estimate(*estimate)
        finite = estimate.point.isfinite() & estimate.mass.sum(1).isfinite()
        return torch.cat([say(estimate, ids), finite[:, None]], 1)

    def summary(self, estimate: Estimate, object_id: np.ndarray) -> Tensor:
        """The columns of a catalogue."""
        drawn = torch.from_numpy(columns.draws(object_id)).to(self.device)
        return summary.table(estimate, self.grid, drawn)

    def masked(self, program: nn.Module, pixels: Tensor, object_id: np.ndarray) -> Estimate:
        """The mean over masks that are drawn for each object."""
        ratio, draws, seed = astuple(self.masking)
        drawn = (visible_tokens(object_id, IMAGE_TOKENS, ratio, draw, seed) for draw in range(draws))
        estimates = [program(pixels, torch.from_numpy(visible).to(self.device)) for visible in drawn]
        return Estimate(*(torch.stack(parts).mean(0) for parts in zip(*estimates, strict=True)))


def filled(rows: np.ndarray, batch: int) -> np.ndarray:
    """Rows, and zeros after them up to a whole batch."""
    if len(rows) == batch:
        return rows
    whole = np.zeros((batch, *rows.shape[1:]), rows.dtype)
    whole[: len(rows)] = rows
    return whole


class Upload:
    """Copies batches to a GPU on a stream of its own, so that one travels while another is computed.

    There are two buffers of pinned memory, filled in turn, each when the copy out of it is done.
    """

    def __init__(self, device: torch.device, batch: int):
        shape = (batch, len(BANDS), SIZE, SIZE)
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
