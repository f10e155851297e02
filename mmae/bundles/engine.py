"""The engine: runs the program of a bundle on images, in batches whose shape never changes.

The last bits of a row depend on the shape of the batch it is in. The tail of a block is filled up, and then
they depend on the row alone.
"""

from collections.abc import Callable
from dataclasses import astuple
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from mmae.bundles import columns, summary
from mmae.bundles.bundle import Bundle
from mmae.bundles.image_mask import WHOLE, visible_tokens
from mmae.hardware import FP32
from mmae.layers.conditions import unknown
from mmae.layers.gpu import sent
from mmae.layers.patches import IMAGE_TOKENS
from mmae.layers.pdf import Grid
from mmae.layers.photometry import RADII
from mmae.models.families import config_of
from mmae.models.output import Estimate

Readout = Callable[[Estimate, Tensor], Tensor]
"""Computes numbers (B, C) from the estimates of a batch, and the levels (B,) that its ids draw."""


def engine_of_this_process(bundle: Bundle, batch: int) -> "Engine":
    return Engine(bundle, device_of_this_process(), batch)


def device_of_this_process() -> torch.device:
    """The GPU of this process, or one core."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(1)
    return torch.device("cpu")


class Input(NamedTuple):
    """What a program is run on."""

    image: np.ndarray
    object_id: np.ndarray
    conditions: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, object_id: np.ndarray, conditions: np.ndarray | None) -> Self:
        if conditions is None:
            conditions = unknown(torch.from_numpy(image)).numpy()
        return cls(image, object_id, conditions)

    def rows(self, which: slice) -> "Input":
        return Input(*(column[which] for column in self))


class Engine:
    """The program of a bundle on a device: images in, columns of the catalogue or embeddings out.

    A row has the same bytes whatever rows are computed with it, on the same hardware and software. A row that
    leaves the range of reduced precision is computed again in float32.
    """

    def __init__(self, bundle: Bundle, device: torch.device, batch: int):
        self.device, self.batch, self.masking = device, batch, bundle.masking
        self.grid = Grid(**bundle.card["grid"]) if bundle.card["grid"] else None
        self.joint_dim = config_of(bundle.card["family"], bundle.card["model_config"]).joint_dim
        self.colours = len(RADII) * len(bundle.input.bands)
        self.program: nn.Module = bundle.load(device)
        self.exact: nn.Module | None = None if bundle.precision == FP32 else bundle.load(device, FP32)
        self.upload = Upload(device) if device.type == "cuda" else None

    def table(
        self, image: np.ndarray, object_id: np.ndarray, conditions: np.ndarray | None = None
    ) -> np.ndarray:
        """Columns (m, C) float32 of images (m, bands, 64, 64) float32, NaN: no data, and ids (m,) int64.

        conditions (m, 2 * bands + 1) float32: of the observation; NaN, or None: not known.
        columns.named gives them their names.
        """
        return self.compute(Input.of(image, object_id, conditions), self.summary, self.columns)

    def table_and_pdf(
        self, image: np.ndarray, object_id: np.ndarray, conditions: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same columns, and p(z) as the probability of each bin of the grid, (m, K) float32."""
        assert self.grid, "this model has no p(z)"
        cutouts = Input.of(image, object_id, conditions)
        both = self.compute(cutouts, self.summary_and_pdf, self.columns + self.grid.bins)
        return both[:, : self.columns], both[:, self.columns :]

    @property
    def columns(self) -> int:
        """Number of columns of `table`."""
        return columns.WITH_PDF + self.colours if self.grid else columns.WITHOUT_PDF

    def joint(
        self, image: np.ndarray, object_id: np.ndarray, conditions: np.ndarray | None = None
    ) -> np.ndarray:
        """Joint representations (m, J) float32 of the same."""
        cutouts = Input.of(image, object_id, conditions)
        return self.compute(cutouts, lambda estimate, drawn: estimate.joint, self.joint_dim)

    def compute(self, cutouts: Input, readout: Readout, width: int) -> np.ndarray:
        """The readout of all rows, (m, width)."""
        number = len(cutouts.image)
        spans = [slice(start, start + self.batch) for start in range(0, number, self.batch)]
        outputs = [self.run(self.program, cutouts.rows(rows), readout) for rows in spans]
        values = np.empty((number, width), np.float32)
        for rows, output in zip(spans, outputs, strict=True):  # only here a GPU is waited for
            block = output.cpu().numpy()[: len(cutouts.rows(rows).image)]
            lost = block[:, -1] == 0
            if self.exact is not None and lost.any():
                exact = self.run(self.exact, cutouts.rows(rows), readout).cpu().numpy()
                block = np.where(lost[:, None], exact[: len(lost)], block)
            values[rows] = block[:, :-1]
        return values

    @torch.inference_mode()
    def run(self, program: nn.Module, cutouts: Input, readout: Readout) -> Tensor:
        """The readout of a batch, on the device, and then whether it is finite: (batch, C + 1)."""
        image, ids, conditions = (filled(column, self.batch) for column in cutouts)
        rows = [torch.from_numpy(column) for column in (image, conditions, columns.draws(ids))]
        pixels, told, drawn = self.upload(rows) if self.upload else rows
        if self.masking == WHOLE:
            estimate = Estimate(*program(pixels, None, told))
        else:
            estimate = self.masked(program, pixels, told, ids)
        finite = estimate.point.isfinite() & estimate.mass.sum(1).isfinite()
        return torch.cat([readout(estimate, drawn), finite[:, None]], 1)

    def summary(self, estimate: Estimate, drawn: Tensor) -> Tensor:
        """Readout: the columns of a catalogue."""
        return summary.table(estimate, self.grid, drawn)

    def summary_and_pdf(self, estimate: Estimate, drawn: Tensor) -> Tensor:
        """Readout: the columns, and p(z)."""
        mass = estimate.mass / estimate.mass.sum(1, keepdim=True)
        return torch.cat([self.summary(estimate, drawn), mass], 1)

    def masked(
        self, program: nn.Module, pixels: Tensor, conditions: Tensor, object_id: np.ndarray
    ) -> Estimate:
        """Mean estimates over masks that are drawn for each object."""
        ratio, draws, seed = astuple(self.masking)
        drawn = (visible_tokens(object_id, IMAGE_TOKENS, ratio, draw, seed) for draw in range(draws))
        estimates = [
            program(pixels, sent(torch.from_numpy(visible), self.device), conditions) for visible in drawn
        ]
        return Estimate(*(torch.stack(parts).mean(0) for parts in zip(*estimates, strict=True)))


def filled(rows: np.ndarray, batch: int) -> np.ndarray:
    """Rows, padded with zeros to a whole batch."""
    if len(rows) == batch:
        return rows
    whole = np.zeros((batch, *rows.shape[1:]), rows.dtype)
    whole[: len(rows)] = rows
    return whole


def pinned(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 in pinned memory, which a GPU reads by itself; torch keeps it for the next."""
    return torch.empty(shape, pin_memory=True).numpy()


class Upload:
    """Copies batches to a GPU on a stream of its own, so that one travels while another is computed."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)

    def __call__(self, rows: list[Tensor]) -> list[Tensor]:
        """The tensors on the GPU; those in pinned memory must not change before they were computed with."""
        with torch.cuda.stream(self.stream):
            there = [sent(part, self.device) for part in rows]
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for part in there:
            part.record_stream(computing)  # its memory is not to be used anew before it was computed with
        return there
