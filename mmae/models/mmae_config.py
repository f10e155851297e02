"""What our own model is made of: its sizes, its bands, and what it learns beside redshifts."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import Suppress

from catalogs.bands import HSC
from catalogs.products.screen import LEAST_BANDS
from catalogs.ranges import check_range, check_sizes
from catalogs.store.spectra import STORED_POOL
from mmae.layers.pdf import Grid
from mmae.layers.rest_frame import LOG_STEP

HEAD_DIM, DECODER_HEAD_DIM = 64, 32
"""Width of an attention head. A CPU is fastest with 64, and with 64 tokens: so there is no class token."""
MAX_Z = 20.0
"""Largest redshift of a grid: nothing brighter than the noise is beyond."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of our own model."""

    embed_dim: int = 192
    """Width of a token; a multiple of 64, the width of a head."""
    photometry_dim: int = 96
    """Width of each of the networks that read p(z) from photometry alone."""
    depth: int = 6
    """Layers of the trunk."""
    decoder_dim: int = 96
    """Width of a token in the decoder; a multiple of 32."""
    decoder_depth: int = 2
    """Layers of the decoder."""
    templates: int = 24
    """Rest-frame templates, whose sum is the spectrum before the decoder's correction."""
    bins: int = 320
    """Bins of p(z), equal in ln(1 + z)."""
    z_max: float = 4.5
    """Upper end of p(z)."""

    own_light: bool = True
    """Whether light of other sources than the one in the middle is left out (own_light.py)."""

    bands: Annotated[tuple[str, ...], Suppress] = HSC
    """Names of the planes of images, in the table of bands; those of the training store."""
    surveys: Annotated[tuple[tuple[str, ...], ...], Suppress] = ()
    """Which of them each training store has; none: all."""
    classes: Annotated[bool, Suppress] = False
    """Whether it tells stars, galaxies and quasars apart: where there are stars in the training stores."""
    columns: Annotated[tuple[str, ...], Suppress] = ()
    """Columns of the training stores (`columns/NAME`) that it takes beside images, where they are known."""

    family: ClassVar[str] = "mmae"
    least_bands: ClassVar[int] = LEAST_BANDS
    """Observed bands that it needs of an object."""
    hears: ClassVar[bool] = True
    """Whether seeing and extinction can be told to it."""
    spectrum_pool: ClassVar[int] = STORED_POOL
    spectrum_patch: ClassVar[int] = 27
    """Pixels of a token: 130 angstrom."""
    spectrum_tokens: ClassVar[int] = 48

    def __post_init__(self) -> None:
        for name in ("bands", "columns"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "surveys", tuple(map(tuple, self.surveys)))
        check_sizes(
            {"depth": self.depth, "decoder_depth": self.decoder_depth},
            {"embed_dim": self.embed_dim, "decoder_dim": self.decoder_dim, "bins": self.bins}
            | {"photometry_dim": self.photometry_dim, "templates": self.templates},
        )
        check_range("--model.z-max", self.z_max, 0, MAX_Z)
        for width, head in ((self.embed_dim, HEAD_DIM), (self.decoder_dim, DECODER_HEAD_DIM)):
            if width < head or width % head:
                raise ValueError(
                    f"embed_dim must be a multiple of {HEAD_DIM}, decoder_dim of {DECODER_HEAD_DIM}"
                )
        if min(self.depth, self.decoder_depth, self.photometry_dim) < 1:
            raise ValueError("depths and photometry_dim must be at least 1")
        if self.bins < 8 or not self.z_max > 0:
            raise ValueError("bins must be at least 8, z_max positive")
        if self.templates < 0:
            raise ValueError("templates must be at least 0")
        if self.grid.step < LOG_STEP:  # every bin needs at least one shift of the templates
            raise ValueError(f"bins must be wider than {LOG_STEP} in ln(1 + z): have fewer")

    @property
    def spectrum_length(self) -> int:
        return self.spectrum_tokens * self.spectrum_patch

    @property
    def joint_dim(self) -> int:
        """Width of the joint representation."""
        return self.embed_dim

    @property
    def sets_of_surveys(self) -> list[int]:
        """Numbers of the sets of bands of the training stores."""
        surveys = self.surveys or (self.bands,)
        return [sum(1 << self.bands.index(name) for name in bands) for bands in surveys]

    @property
    def grid(self) -> Grid:
        return Grid(self.bins, self.z_max)
