"""The training recipe: its flags, and the presets of them (paper, section 4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import AvoidSubcommands, Positional, arg

from catalogs.bands import had_by
from catalogs.errors import InputRefused, UsageError
from catalogs.place import place
from catalogs.place_flag import PlaceFlag
from catalogs.products.screen import LEAST_BANDS
from catalogs.ranges import SEEDS, check_range
from catalogs.store.checks import check_folder
from mmae.hardware import BF16, FP32, Precision, has_bf16
from mmae.layers.photometry import MAX_BANDS
from mmae.models import checkpoint
from mmae.models.families import AnyConfig
from mmae.models.himes2025 import Himes2025Config
from mmae.models.mmae_config import ModelConfig

DATA, CONFIG_FILE = Path("train.zarr"), Path("train.toml")
"""What is trained on, and the flags that are read, where nothing is named."""
MAX_SHARE = 1000.0
"""Most often that a galaxy is seen in an epoch."""


@dataclass(frozen=True)
class Train:
    """Train the masked autoencoder on stores with spectra and redshifts.

    Parts of images and spectra are hidden, and the model rebuilds them and predicts the redshift. Of a galaxy
    without spectrum or redshift it learns what there is; those with an image that inference would reject are
    left out. The split is 70/15/15, by object id; a galaxy that is in several stores is in the split that it
    has in the first of them. The best epoch is selected by validation without spectra.

    --preset himes2025 trains the paper's model by the paper's recipe: 75 % of either modality hidden, half of
    the steps without spectra, loss = 0.1 image + 0.01 spectrum + 1.0 redshift, a constant rate. Give it
    with --help to see its flags. The default preset is mmae: our own model and recipe.

    Started again with the same flags, a run resumes from its newest checkpoint; a finished one is not
    touched. SIGTERM or Ctrl-C saves a checkpoint before the process ends (exit code 4).

    --config FILE.toml reads flags from a file: `lr = 2e-4`, and under [model] `depth = 2`. The command line
    overrides the file. Without any flag, the command reads train.toml where there is one, else it trains on
    train.zarr.

    Several GPUs: torchrun --nproc-per-node 4 -m mmae.train ...; on Slurm: python -m jobs.train ... The number
    of ranks changes the speed, not the result: order, masks and means are those of the whole batch (dropout
    alone is drawn by each rank). Curves: OUT/metrics.jsonl, tensorboard --logdir OUT, and MLflow where
    MLFLOW_TRACKING_URI is set and mlflow-skinny installed.
    """

    # What to read and where to write
    data: Positional[tuple[PlaceFlag, ...]] = (DATA,)
    """Training stores (`mmae ingest`), of one survey or several, with spectra, redshifts, or images alone:
    all are brought to the unit and pixels of the first. In a file of flags: data = "survey.zarr", or
    data = ["a.zarr", "b.zarr"]."""
    out: Path = Path("runs/mmae")
    """Run directory."""
    start: Annotated[Path | None, arg(name="from")] = None
    """Run directory or checkpoint to begin with, such as that of a survey with more redshifts: its model goes
    on learning, with the bands of the store in the places of those of the same filters, and others beside
    them; the store is brought to its unit and pixels. A lower --lr keeps more of it."""

    shares: tuple[float, ...] = ()
    """How many of the galaxies of each store an epoch sees, as a share: 0.5 is half of them, drawn anew for
    every epoch, 2 is each twice. One number a store, in their order; by default all once."""
    unlabelled: float = 0.2
    """The same for objects of any store of which nothing but the image is known: no redshift, no spectrum,
    and not what they are. Beside as many galaxies with redshifts a fifth of them costs nothing, and all of
    them a tenth of the scatter."""

    like: PlaceFlag | None = None
    """Cutout store of the survey that redshifts are wanted for: galaxies with a redshift are seen more often
    or less, so that they stand for its objects, by colours and magnitudes; so are those that choose the epoch
    and calibrate p(z)."""

    columns: tuple[str, ...] = ()
    """Columns of the stores (`columns/NAME`), such as magnitudes and sizes, that the model takes beside
    images where they are known. It does without them just as well as a model that never had any."""

    # Length and batches
    epochs: int = 100
    """Passes over the training galaxies."""
    patience: int = 0
    """Epochs without a better validation loss after which the run ends early; 0: never."""
    batch: int = 256
    """Galaxies per step, over all ranks."""
    accumulate: int = 1
    """Micro-batches per rank and step, to save memory; the gradients stay the same."""

    # The optimiser
    lr: float = 3e-3
    """Learning rate; the highest one of a schedule."""
    schedule: Literal["constant", "restarts", "one-cycle"] = "one-cycle"
    """one-cycle: rises over the first twentieth of the run, and falls to nothing by its end; restarts: falls
    in cosine cycles, each twice as long as the one before."""
    first_cycle: int = 10
    """Epochs of the first cycle of restarts."""
    weight_decay: float = 0.05
    """Weight decay of AdamW; positions, queries and the like have none."""
    clip: float = 1.0
    """Largest gradient norm."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is the model that is used; 0: no average."""

    # What is hidden
    image_mask: tuple[float, float] = (0.0, 0.75)
    """Share of image tokens hidden, drawn for each step from this range, ends included."""
    whole_images: float = 0.5
    """Share of steps in which the images are whole."""
    spectrum_mask: float = 0.75
    """Share of spectrum tokens hidden."""
    spectrum_dropout: float = 0.7
    """Share of the galaxies that come without their spectrum."""
    dropout_of: Literal["galaxies", "steps"] = "galaxies"
    """Whether single galaxies come without it, or all galaxies of a step, as in the paper's code: the
    gradient of its model is not finite at first where no spectrum is visible, so some steps need spectra."""
    rebuild_absent: bool = True
    """Whether the spectrum is also rebuilt for galaxies that come without it."""
    band_dropout: float = 0.1
    """Share of the galaxies that come without some of their bands: one at least, two are left at least."""
    noisier: float = 0.1
    """Share of the galaxies to whose images noise is added, as if they were shallower: up to three times the
    noise they have."""
    turn: bool = True
    """Turn and flip images at random."""
    wrong: float = 0.0
    """Share of the redshifts that may be wrong, beside what a store says of each (redshift_weight): those
    that p(z) excludes then count less."""
    complete: bool = False
    """Train on galaxies with spectrum and redshift alone; else each teaches what it has."""

    # The machine
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products; weights, optimiser and losses are fp32. auto: bf16 where the hardware has
    it; elsewhere fp32, which is faster there."""
    compile: bool = False
    """Compile the layers with torch.compile: it takes minutes at the start, and is meant for GPUs."""
    checkpoint_minutes: float = 15.0
    """Longest time between checkpoints; there is one at the end of every epoch, too."""
    seed: int = 0
    """Seed of the weights, the order of galaxies and the masks."""

    model: Annotated[AnyConfig, AvoidSubcommands] = field(default_factory=ModelConfig)

    config_file: ClassVar[Path] = CONFIG_FILE

    def __post_init__(self) -> None:
        shares: tuple[float, ...] = (*self.image_mask, self.whole_images, self.spectrum_mask)
        shares += (self.spectrum_dropout, self.band_dropout, self.noisier, self.wrong)
        if not all(0 <= share <= 1 for share in shares) or self.image_mask[0] > self.image_mask[1]:
            raise UsageError(
                "masks, whole images, dropouts, noisier and wrong are shares from 0 to 1, ranges ascend"
            )
        check_range("--seed", self.seed, *SEEDS)
        if not self.data:
            raise UsageError("name a training store")
        if self.shares and len(self.shares) != len(self.data):
            raise UsageError(f"--shares takes one number a store: {len(self.data)}")
        if not all(0 < share <= MAX_SHARE for share in self.shares) or not 0 <= self.unlabelled <= MAX_SHARE:
            raise UsageError(f"shares of an epoch are above 0, and at most {MAX_SHARE:.0f}")
        if min(self.epochs, self.batch, self.accumulate, self.first_cycle) < 1 or self.patience < 0:
            raise UsageError("epochs, batch, accumulate, first cycle must be at least 1, patience at least 0")
        positive = (self.lr, self.clip, self.checkpoint_minutes)
        if not all(math.isfinite(x) and x > 0 for x in positive):
            raise UsageError("lr, clip and checkpoint minutes must be positive")
        if not (0 <= self.weight_decay < 1 and 0 <= self.average < 1):
            raise UsageError("weight decay and average must be from 0 to 1, without 1")

    @property
    def arithmetic(self) -> Precision:
        """The precision on this machine, with auto resolved."""
        if self.precision == "auto":
            return BF16 if has_bf16() else FP32
        return self.precision

    def check_data(self) -> None:
        """Raises UsageError where there is no such store, or nothing to begin with."""
        if self.data == (DATA,) and not DATA.exists():
            raise UsageError(
                f"there is neither {DATA} nor {CONFIG_FILE} in {Path.cwd()}: name a training store, which "
                "`mmae ingest` makes, or write flags to that file"
            )
        for path in (*self.data, *([self.like] if self.like else [])):
            check_folder(path)
        if len({path.resolve() for path in self.data}) < len(self.data):
            raise UsageError(f"a store is named twice: {self.names}")
        begun = checkpoint.newest(self.out) is not None  # and has what it needs of the other run
        if self.start is not None and not begun and not self.start.exists():
            raise UsageError(f"--from {self.start} does not exist: name a run directory or a checkpoint")

    @property
    def names(self) -> str:
        """The paths of the stores."""
        return ", ".join(map(str, self.data))

    def on_bands(self, bands: tuple[str, ...], of_stores: Sequence[Sequence[str]]) -> "Train":
        """The recipe for stores with these bands together, which our own model takes as they are."""
        if not isinstance(self.model, ModelConfig):
            if self.columns:
                raise UsageError("--columns is for our own model: the paper's takes images and spectra alone")
            return self
        if not LEAST_BANDS <= len(bands) <= MAX_BANDS:
            raise InputRefused(
                f"{self.names}: {len(bands)} bands ({' '.join(bands)}), {LEAST_BANDS} to {MAX_BANDS} are "
                "taken"
            )
        surveys = had_by(bands, of_stores)
        return replace(self, model=replace(self.model, bands=bands, surveys=surveys, columns=self.columns))

    def with_classes(self) -> "Train":
        """The recipe for stores with stars, which our own model tells from galaxies and quasars."""
        if not isinstance(self.model, ModelConfig):
            return self
        return replace(self, model=replace(self.model, classes=True))

    @classmethod
    def preset(cls, name: str | None, data: Sequence[str] = ()) -> "Train":
        """The defaults of a preset, by default our own, for stores; UsageError for an unknown name."""
        if (name := name or ModelConfig.family) not in PRESETS:
            raise UsageError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
        return cls(tuple(map(place, data)) or (DATA,), **PRESETS[name])


PRESETS: dict[str, dict[str, Any]] = {
    ModelConfig.family: {},
    Himes2025Config.family: {
        "lr": 1e-4,
        "schedule": "constant",
        "weight_decay": 0.01,
        "average": 0.0,
        "image_mask": (0.75, 0.75),
        "whole_images": 0.0,
        "spectrum_dropout": 0.5,
        "dropout_of": "steps",
        "rebuild_absent": False,
        "band_dropout": 0.0,
        "noisier": 0.0,
        "turn": False,
        "complete": True,
        "model": Himes2025Config(),
    },
}
"""Defaults of `Train` by preset; the paper's are those of its section 4."""
