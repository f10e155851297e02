"""The multi-modal masked autoencoder: it predicts a galaxy and its p(z) from the visible tokens.

    image (B, bands, 64, 64) -> photometry -> p(z), every token, and the mean
                             -> 64 tokens -+- visible ones -+          +-> mean of tokens -> p(z), point
                                                            +-> trunk -+
    spectrum (B, 1296)       -> 48 tokens -+- visible ones -+          +-> decoder -> image, spectrum
                                                                           (hidden tokens enter here)

p(z) is what photometry alone says (photometric_pdf.py), corrected by what the trunk sees.

Both modalities share one pre-norm transformer, in which a galaxy without a spectrum is a shorter sequence.
Hidden tokens enter only in the decoder, as a learned token at their position: the cost of the trunk is that
of the visible tokens. Masks are boolean, True = hidden.

Pixels are in units of the noise of their own sky, on an asinh scale: faint or bright, a galaxy is of order
one, and noise is alike in every band and at every depth. The depth is told beside them, and seeing and
extinction where they are known (conditions.py). Pixels without data are NaN in the image, in all of it for a
band that was not observed; nothing but that is known of them. The features of a patch are its pixels, and of
each band the mean and the share without data. A network learns colours to a hundredth of a magnitude only
late from these, so photometry.py measures them, in units of the noise of the training set; lines in observed
spectra, too, so it predicts spectra in the rest frame (rest_frame.py), at the redshift that fits
the visible pixels (template_fit.py), and the image as the residual from its likeliest one by what is visible
(image_fit.py).
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogs.store.format import SPECTYPES
from mmae.layers.columns import Columns, column_pdf, together
from mmae.layers.conditions import SHALLOWEST, Conditions, shallowness, split_told, unknown
from mmae.layers.gpu import sent
from mmae.layers.image_fit import ImageFit
from mmae.layers.own_light import own_pixels
from mmae.layers.patches import IMAGE_TOKENS, PATCH, patches, pixels_of, unpatch
from mmae.layers.pdf import best, distribution
from mmae.layers.photometric_pdf import PhotometricPdf, shares
from mmae.layers.photometry import Photometry, asinh
from mmae.layers.rest_frame import RestFrame
from mmae.layers.template_fit import TemplateFit
from mmae.layers.transformer import Block, Embedding
from mmae.models.batch import Batch
from mmae.models.decoder import Decoder
from mmae.models.losses import crossed, hsc_loss, image_pixels, masked_mean, spectrum_pixels
from mmae.models.masking import Masks
from mmae.models.mmae_config import HEAD_DIM, ModelConfig
from mmae.models.output import Output

PHOTOMETRY_RATE = 6.0
"""Learning rate of the networks of photometry, in units of that of the trunk."""
MAX_ASINH = 15.0
"""Largest output of the decoder on the asinh scale, 10^6 times the noise: sinh must not overflow."""


def features(pixels: Tensor, known: Tensor, noise: Tensor, patch: int = PATCH) -> Tensor:
    """Features (B, 64, bands * 66) of patches (B, 64, bands * 64) of images with the noise (B, bands).

    Pixels and their means per band, each in units of its noise and on the asinh scale; then the shares of
    pixels without data.
    known, of the shape and type of the pixels, or (B, 64, 64) for all bands: 1 = there are data, 0 = there
    are none, and the pixel is 0.
    """
    of_band = pixels.unflatten(2, (-1, patch * patch)) / noise[:, None, :, None]
    share = known.unflatten(2, (-1, patch * patch)).mean(3)
    means = of_band.mean(3) / share.clamp(min=1 / (patch * patch))
    means = means * patch  # whose noise is an eighth of a pixel's
    missing = (1 - share).expand_as(means)
    return torch.cat([asinh(torch.cat([of_band.flatten(2), means], 2)), missing], 2)


def class_head(width: int) -> nn.Sequential:
    """Joint representations (B, D) -> logits (B, 3) of star, galaxy and quasar, at first all alike."""
    last = nn.Linear(width, len(SPECTYPES) - 1)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), last)


class Read(NamedTuple):
    """What the trunk, its heads and the decoder make of visible tokens."""

    pixels: Tensor
    """(B, 64, bands * 64) of the image, beside the likeliest one, in units of the noise, asinh"""
    flux: Tensor
    """(B, 48, 27) of the spectrum, beside the templates"""
    joint: Tensor
    """(B, D)"""
    point: Tensor
    """(B, 1)"""
    photometric: Tensor
    """(B, K) logits of p(z) from photometry alone"""
    correction: Tensor
    """(B, K) of these"""
    spectype: Tensor
    """(B, 3) logits of classes, or (B, 0)"""
    beside: Tensor
    """(B, F) features of photometry and conditions"""
    central: Tensor
    """(B, bands) magnitudes in the middle"""


class Model(nn.Module):
    """The model; inference needs `image_embed`, the blocks and the head (program.py)."""

    noise: Tensor
    others: Tensor
    """(K,), n(z): masses of the redshifts of the training set"""

    def __init__(self, config: ModelConfig = ModelConfig()):
        super().__init__()
        width = config.embed_dim
        self.config = config
        bands = len(config.bands)
        self.register_buffer("noise", torch.ones(bands))
        self.register_buffer("others", torch.full((config.bins,), 1 / config.bins))
        self.photometry = Photometry(bands)
        self.conditions = Conditions(bands)
        told = self.conditions.features
        measured = self.photometry.features - bands
        self.photometric_pdf = PhotometricPdf(
            bands, measured, config.photometry_dim, config.bins, config.sets_of_surveys
        )
        self.photometry_embed = Embedding(1, self.photometry.features + told, width, remarks=bands + told)
        self.image_embed = Embedding(IMAGE_TOKENS, bands * (PATCH**2 + 2), width, remarks=bands)
        self.spectrum_embed = Embedding(config.spectrum_tokens, config.spectrum_patch, width)
        self.blocks = nn.Sequential(*(Block(width, HEAD_DIM) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(width)
        last = nn.Linear(2 * width, config.bins + 1)
        with torch.no_grad():  # at first, p(z) is that of photometry alone
            last.weight[1:], last.bias[1:] = 0.0, 0.0
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)
        self.class_head = class_head(width) if config.classes else None
        self.decoder = Decoder(config)
        self.rest_frame = RestFrame(width, config.templates, config.spectrum_length, config.z_max)
        self.image_fit = ImageFit(bands, width)
        # last, and without a gradient into the others: these are what they would be without columns
        self.columns = Columns(len(config.columns)) if config.columns else None
        if self.columns is not None:
            beside = self.columns.features
            read = beside + self.photometry.features + told
            self.column_pdf = column_pdf(read, config.bins)
            self.column_decoder = nn.Sequential(
                nn.Linear(beside + width, width), nn.GELU(), nn.Linear(width, len(config.columns))
            )

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups: weight decay for matrices only, not for positions, gains and biases."""
        of_photometry = list(self.photometric_pdf.parameters())
        if self.columns is not None:
            of_photometry += self.column_pdf.parameters()
        ids = {id(parameter) for parameter in of_photometry}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in ids]
        matrices = [parameter for parameter in rest if parameter.ndim == 2]
        others = [parameter for parameter in rest if parameter.ndim != 2]
        return [
            {"params": matrices, "lr": lr},
            {"params": others, "lr": lr, "weight_decay": 0.0},
            {"params": of_photometry, "lr": PHOTOMETRY_RATE * lr},
        ]

    def fit(self, image: Tensor, conditions: Tensor, noise: list[float], redshift: Tensor) -> None:
        """Set the scales of pixels, photometry, conditions and columns, the mean image, and n(z).

        From images (N, bands, 64, 64), their conditions (N, 2 * bands + 1 + C), their noise by band, and
        redshifts (N,), NaN: not known.
        """
        self.noise.copy_(torch.tensor(noise))
        self.expect(redshift)
        pixels, known = self.pixels(image)
        self.photometry.fit(pixels, known)
        self.image_fit.fit(pixels, known)
        told, columns = split_told(conditions, image.shape[1], len(self.config.columns))
        self.conditions.fit(pixels, known, self.noise, told)
        if self.columns is not None:
            self.columns.fit(columns)

    def expect(self, redshift: Tensor) -> None:
        """Set n(z), from redshifts (N,) of the training set; NaN: not known."""
        self.others.copy_(distribution(redshift, self.config.grid))

    def pixels(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, 64, bands * 64) in units of the sky noise, and where own light is seen: 1 or 0."""
        image, known = own_pixels(image, self.noise, self.config.own_light)
        return patches(image), patches(known.expand_as(image))

    def encode(
        self,
        pixels: Tensor,
        known: Tensor,
        shown: Tensor,
        told: Tensor,
        spectrum: Tensor | None,
        indices: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Encode the visible tokens, (B, V, D), and the joint representation, (B, D); and logits (B, K).

        The joint one is the mean of the tokens plus the photometry, which was also added to each token. The
        logits are those of p(z) from photometry alone, to which those from the joint one are to be added. The
        last are the features of photometry and conditions, (B, F), and magnitudes in the middle, (B, bands).

        pixels, known: as from `pixels`; shown (B, 64), 1 = the token is visible, 0 = hidden; told
        (B, 2 * bands + 1): the conditions; indices (B, V), int64: which of 64 image tokens, and 48 spectrum
        tokens after them, are visible.
        """
        with torch.autocast(pixels.device.type, enabled=False):  # small differences of large numbers
            seen = known * shown.unsqueeze(2)
            measured, present, central = self.photometry(pixels, seen)
            noise, conditions = self.conditions(pixels, seen, self.noise, told)
            beside = torch.cat([measured, conditions], 1)
            photometry = self.photometry_embed(beside.unsqueeze(1))
            with torch.no_grad():
                logits = self.photometric_pdf(measured, conditions, present)
        tokens = self.image_embed(features(pixels, known, noise))
        if spectrum is not None:
            tokens = torch.cat(
                [tokens, self.spectrum_embed(spectrum.unflatten(1, (-1, self.config.spectrum_patch)))], 1
            )
        tokens = tokens.gather(1, indices.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        encoded = self.norm(self.blocks(tokens + photometry))
        joint = encoded.sum(1) / max(1, encoded.shape[1]) + photometry[:, 0]
        return encoded, joint, logits, beside, central

    def forward(
        self,
        image: Tensor,
        spectrum: Tensor,
        image_mask: Tensor,
        spectrum_mask: Tensor,
        redshift: Tensor | None = None,
        conditions: Tensor | None = None,
    ) -> Output:
        """All outputs of the model for partly hidden galaxies.

        image (B, bands, 64, 64) flux, NaN: no data; spectrum (B, 1296) normalised; image_mask (B, 64),
        spectrum_mask (B, 48): every row hides the same number of image tokens, and the same number of
        spectrum tokens, or all; on the host, where a GPU is not to be waited for. conditions
        (B, 2 * bands + 1), or (B, 2 * bands + 1 + C) with columns: of the images; NaN, or None: not known.
        redshift (B,): that of the lines of the spectrum, in training; NaN: that of p(z). By default it is the
        one from p(z) and the visible pixels of the spectrum.
        """
        (whole, own), hidden = self.pixels(image), sent(image_mask, image.device)
        seen, known = whole, own
        if image_mask.any():  # what is hidden does not tell whose light is whose
            seen, known = self.pixels(image.masked_fill(pixels_of(hidden), math.nan))
        shown = (~hidden).to(image.dtype)
        conditions = unknown(image) if conditions is None else conditions
        told, columns = split_told(conditions, image.shape[1], len(self.config.columns))
        read = self.read(seen, known, shown, told, spectrum, image_mask, spectrum_mask)
        logits = read.photometric + read.correction
        with torch.autocast(image.device.type, enabled=False):
            photometric, weights = self.by_photometry(whole, own, seen, known, told)
            rebuilt = columns
            if self.columns is not None:
                of_columns, any_known = self.columns(columns)
                if self.training:
                    also = [(logits, torch.ones_like(any_known))]
                    if seen is not whole:
                        also.append((self.whole_with_columns(of_columns, whole, own, told), any_known))
                    photometric = torch.cat([photometric, *(each.unsqueeze(1) for each, _ in also)], 1)
                    weights = torch.cat([weights, *(weight for _, weight in also)], 1)
                with_columns = self.column_pdf(together(of_columns, read.beside, read.photometric))
                logits = torch.where(any_known > 0, with_columns + read.correction.detach(), logits.detach())
                rebuilt = self.column_decoder(torch.cat([of_columns, read.joint.detach()], 1))
            noise, _ = self.depth(read.beside)
            pixels = read.pixels + self.image_fit(seen, known * shown.unsqueeze(2), read.joint, noise.exp())
            visible = (~spectrum_mask).repeat_interleave(self.config.spectrum_patch, 1)
            if redshift is None:
                logits, redshift = self.with_lines(logits, read.joint, spectrum, visible)
            else:
                redshift = torch.where(redshift.isnan(), self.least_risk(logits).detach(), redshift)
            visible = sent(visible, image.device).to(image.dtype)
            flux = read.flux.flatten(1) + self.rest_frame(read.joint, redshift, spectrum, visible)
        return Output(
            image=unpatch(pixels.clamp(-MAX_ASINH, MAX_ASINH).sinh()) * self.noise.view(-1, 1, 1),
            spectrum=flux,
            joint=read.joint,
            point=read.point[:, 0],
            logits=logits,
            photometric=photometric,
            weights=weights,
            spectype=read.spectype,
            shallow=self.shallow(read.beside),
            central=read.central,
            columns=rebuilt,
        )

    def read(
        self,
        seen: Tensor,
        known: Tensor,
        shown: Tensor,
        told: Tensor,
        spectrum: Tensor,
        image_mask: Tensor,
        spectrum_mask: Tensor,
    ) -> Read:
        """What the visible tokens say, galaxies with a spectrum and those without apart.

        seen, known: as from `pixels`, of what is visible; shown, told: as for `encode`; the others: as for
        `forward`.
        """
        visible, has_spectrum = ~torch.cat([image_mask, spectrum_mask], 1), ~spectrum_mask.all(1)
        of_groups: list[tuple[Tensor, ...]] = []
        groups = [each.nonzero()[:, 0] for each in (has_spectrum, ~has_spectrum) if each.any()]
        for group in groups:
            rows = sent(group, seen.device)
            indices = sent(visible[group].nonzero()[:, 1].view(len(group), -1), seen.device)
            present = spectrum[rows] if has_spectrum[group[0]] else None
            encoded, joint, photometric, beside, central = self.encode(
                seen[rows], known[rows], shown[rows], told[rows], present, indices
            )
            point, correction = self.head(joint).split([1, self.config.bins], 1)
            spectype = joint[:, :0] if self.class_head is None else self.class_head(joint)
            answers = (point, photometric, correction, spectype, beside, central)
            of_groups.append((*self.decoder(encoded, indices, joint), joint, *answers))
        order = sent(torch.cat(groups).argsort(), seen.device)
        return Read(*(torch.cat(parts)[order].to(seen.dtype) for parts in zip(*of_groups, strict=True)))

    def depth(self, beside: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the noise, and which bands are absent, (B, bands) each, by all features (B, F)."""
        bands, first = len(self.noise), self.photometry.features
        return beside[:, first : first + bands], beside[:, first - bands : first]

    def shallow(self, beside: Tensor) -> Tensor:
        """How shallow images are, (B,), by their features of photometry and conditions (B, F)."""
        return shallowness(*self.depth(beside), math.log(SHALLOWEST))

    def whole_with_columns(self, of_columns: Tensor, pixels: Tensor, known: Tensor, told: Tensor) -> Tensor:
        """Logits (B, K) from columns and photometry of the whole image; arguments as for `encode`."""
        measured, present, _ = self.photometry(pixels, known)
        _, conditions = self.conditions(pixels, known, self.noise, told)
        with torch.no_grad():
            logits = self.photometric_pdf(measured, conditions, present)
        return self.column_pdf(together(of_columns, torch.cat([measured, conditions], 1), logits))

    def by_photometry(
        self, whole: Tensor, own: Tensor, seen: Tensor, known: Tensor, told: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, S, K) of p(z) from photometry alone, and their weights (B, S) in the loss: in training.

        Of all networks of all sets of bands: once from whole images, once from their visible tokens if any
        are hidden.
        whole, own: as from `pixels`, of whole images; seen, known: of what is visible; told: as for `encode`.
        """
        if not self.training:
            return whole.new_zeros(len(whole), 0, self.config.bins), whole.new_zeros(len(whole), 0)
        logits, weights = [], []
        for pixels, where in [(whole, own)] if seen is whole else [(whole, own), (seen, known)]:
            measured, there = self.photometry.of_sets(pixels, where, self.photometric_pdf.numbers)
            _, conditions = self.conditions(pixels, where, self.noise, told)
            of_networks = self.photometric_pdf.of_sets(measured, conditions)
            logits.append(of_networks.flatten(0, 1))
            share = shares(there, self.photometric_pdf.wholes) / of_networks.shape[1]
            weights.append(share.repeat_interleave(of_networks.shape[1], 1))
        weight = torch.cat(weights, 1) / len(weights)
        return torch.cat(logits).transpose(0, 1), weight

    def with_lines(
        self, logits: Tensor, joint: Tensor, spectrum: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits of p(z), (B, K), updated with the visible pixels of spectra; and the redshifts, (B,).

        Where no pixel of a spectrum (B, L) is visible, p(z) stays, and the redshift is that of least risk.
        shown (B, L) bool, True = visible, on the host
        """
        logits, z = logits.clone(), self.least_risk(logits)
        rows = shown.any(1).nonzero()[:, 0].tolist() if self.config.templates else []
        if rows:
            fit = TemplateFit(self.rest_frame, self.config.grid)
            shown = shown.to(spectrum)
        for row in rows:
            logits[row], z[row] = fit.sharpened(logits[row], joint[row], spectrum[row], shown[row])
        return logits, z

    def redshift(self, output: Output) -> Tensor:
        """Point estimate of the redshift, (B,): that of least risk."""
        return self.least_risk(output.logits)

    def least_risk(self, logits: Tensor) -> Tensor:
        """Redshifts (B,) from logits (B, K) of p(z)."""
        return best(logits.softmax(1), self.config.grid)[0]

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of the parts of the loss."""
        parts = ["image", "spectrum", "redshift"]
        parts += ["spectype"] * self.config.classes + ["columns"] * bool(self.config.columns)
        return dict.fromkeys(parts, 1.0)

    def losses(self, output: Output, batch: Batch, masks: Masks) -> Tensor:
        """The parts of the loss, (P,), in the order of `loss_weights`.

        Smooth L1 losses of hidden pixels of image and spectrum, cross-entropy of p(z) plus HSC loss,
        cross-entropy of the class, and smooth L1 loss of hidden columns, in units of their scatter.
        """
        noise, (truth, known) = (
            self.noise.view(-1, 1, 1),
            own_pixels(batch.image, self.noise, self.config.own_light),
        )
        image = F.smooth_l1_loss(asinh(output.image / noise), asinh(truth), reduction="none") * known
        spectrum = F.smooth_l1_loss(output.spectrum, batch.spectrum, reduction="none")
        length, patch = self.config.spectrum_length, self.config.spectrum_patch
        known = batch.redshift.nan_to_num(0.0)  # what is not known is left out of the means
        labels = self.config.grid.soft_labels(known)
        of_sets = crossed(output.photometric, labels.unsqueeze(1), batch.right, self.others) * output.weights
        of_pdf = crossed(output.logits, labels, batch.right, self.others) + of_sets.sum(1)
        parts = [
            masked_mean(image, image_pixels(masks.image, image.shape) | masks.bands[:, :, None, None]),
            masked_mean(spectrum, spectrum_pixels(masks.target, length, patch)),
            masked_mean(of_pdf, masks.labelled) + hsc_loss(output.point, known, batch.right, masks.labelled),
        ]
        if self.config.classes:
            right = (batch.spectype.long() - 1).clamp(min=0)  # where it is not known, it does not count
            of_class = F.cross_entropy(output.spectype, right, reduction="none")
            parts.append(masked_mean(of_class, masks.classified))
        if self.columns is not None:
            _, columns = split_told(batch.conditions, image.shape[1], len(self.config.columns))
            right, _ = self.columns.standard(columns)
            of_columns = F.smooth_l1_loss(output.columns, right, reduction="none")
            parts.append(masked_mean(of_columns, masks.columns_target))
        return torch.stack(parts)
