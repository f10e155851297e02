"""The p(z) of a bundle, worked out from its card."""

import numpy as np
import torch

from mmae.layers.pdf import recalibrated


def calibrated(output, bundle):
    """Output of the full model for N images in all bands -> mass (N, K)."""
    deep = bundle.card["calibration"]["p(z)"]
    masses = []
    ends = deep["shallow"], deep["shallowest"]["shallow"]
    shares = np.clip((output.shallow.double().numpy() - ends[0]) / max(ends[1] - ends[0], 0.05), 0, 1)
    for logits, share, central in zip(
        output.logits, shares.tolist(), output.central.double().numpy(), strict=True
    ):
        said = {
            name: (1 - share) * np.array(deep[name]) + share * np.array(deep["shallowest"][name])
            for name in ("temperature", "entropies", "PIT levels")
        }
        stretch = {
            name: (1 - share) * np.array(deep["stretch"][name])
            + share * np.array(deep["shallowest"]["stretch"][name])
            for name in ("centre", "scale", "weights")
        }
        mass = (logits / float(said["temperature"])).softmax(0)
        mass = torch.from_numpy(stretched(mass.double().numpy(), central, bundle, **stretch)).to(logits)
        entropy = float(torch.distributions.Categorical(mass / mass.sum()).entropy())
        levels = [np.interp(entropy, said["entropies"], pair) for pair in said["PIT levels"].T]
        masses.append(recalibrated(mass[None], torch.tensor(levels, dtype=mass.dtype)[None])[0])
    return torch.stack(masses)


def stretched(mass, central, bundle, centre, scale, weights):
    """1 - (1 - F^a)^b of the CDF F, a and b by entropy, mean, a magnitude and two colours."""
    grid = bundle.card["grid"]
    x = np.log1p(grid["z_max"]) / grid["bins"] * (np.arange(grid["bins"]) + 0.5)
    first, middle, last = central[0], central[len(central) // 2], central[-1]
    entropy = -(mass * np.log(np.maximum(mass, 1e-300))).sum()
    seen = np.array([entropy, (mass * x).sum(), middle, middle - first, last - middle])
    seen = np.clip((seen - centre) / scale, -3, 3)
    products = [seen[i] * seen[j] for i in range(5) for j in range(i, 5)]
    a, b = np.exp(np.clip(np.array([1, *seen, *products]) @ weights, -1.2, 1.2))
    total = np.concatenate([[0], np.cumsum(mass)])
    total = np.clip(total / total[-1], 0, 1)
    return np.diff(1 - (1 - total**a) ** b)
