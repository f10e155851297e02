"""p(z) in bins of z, brought to a grid of redshifts; within a bin the density in ln(1 + z) is even."""

import numpy as np

from catalogs.products.quantiles import means


def cumulative_of_bins(mass: np.ndarray, edges: np.ndarray, z: np.ndarray) -> np.ndarray:
    """CDF at redshifts that all objects share: masses (N, K), edges (K + 1,), z (M,) -> (N, M) float64."""
    total = np.concatenate([np.zeros((len(mass), 1)), np.cumsum(mass, axis=1, dtype=np.float64)], 1)
    x, at = np.log1p(edges), np.log1p(z)
    k = np.searchsorted(x, at, side="right").clip(1, len(edges) - 1) - 1
    share = ((at - x[k]) / (x[k + 1] - x[k])).clip(0, 1)
    return total[:, k] * (1 - share) + total[:, k + 1] * share


def density_of_bins(mass: np.ndarray, edges: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Density at a grid of equal steps, as `quantiles.density_on`: (N, K), (K + 1,), (M,) -> (N, M)."""
    return means(lambda z: cumulative_of_bins(mass, edges, z), grid)
