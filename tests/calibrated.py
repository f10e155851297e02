"""The p(z) of a bundle, worked out from its card."""

import numpy as np
import torch

from mmae.layers.pdf import recalibrated


def calibrated(output, bundle):
    """Output of the full model for N images -> mass (N, K)."""
    deep = bundle.card["calibration"]["p(z)"]
    masses = []
    for logits, share in zip(output.logits, output.shallow.tolist(), strict=True):
        said = {
            name: (1 - share) * np.array(deep[name]) + share * np.array(deep["shallowest"][name])
            for name in ("temperature", "entropies", "PIT levels")
        }
        mass = (logits / float(said["temperature"])).softmax(0)
        entropy = float(torch.distributions.Categorical(mass).entropy())
        levels = [np.interp(entropy, said["entropies"], pair) for pair in said["PIT levels"].T]
        masses.append(recalibrated(mass[None], torch.tensor(levels, dtype=mass.dtype)[None])[0])
    return torch.stack(masses)
