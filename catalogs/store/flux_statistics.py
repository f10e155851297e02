"""Streaming statistics of pixels in constant memory."""

from dataclasses import dataclass, field

import numpy as np

HALF_MAX = float(np.finfo(np.float16).max)


@dataclass
class FluxStatistics:
    """Statistics of any number of float32 values in 8 MB.

    Values are counted after rounding to 12 binary digits, so that quantiles are good to 0.02 %; minimum and
    maximum are exact. All are of the finite values.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(2**20, np.int64), repr=False)
    """Occurrences of each rounded value, from the most negative one."""
    minimum: float = np.nan
    maximum: float = np.nan
    nan: int = 0
    infinite: int = 0
    beyond_half: int = 0
    """Finite values that float16 cannot hold."""

    def add(self, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)]
        nan = int(np.isnan(values).sum())
        self.nan, self.infinite = self.nan + nan, self.infinite + values.size - finite.size - nan
        self.beyond_half += int((np.abs(finite) > HALF_MAX).sum())
        if finite.size:
            self.minimum = float(np.fmin(self.minimum, finite.min()))
            self.maximum = float(np.fmax(self.maximum, finite.max()))
            bits = finite.view(np.uint32)
            bits = bits + np.uint32(0x7FF) + (bits >> 12 & 1)  # round to nearest, ties to even
            key = np.where(bits >> 31, ~bits, bits | 0x80000000) >> 12  # these sort as the floats do
            self.counts += np.bincount(key, minlength=len(self.counts))

    @property
    def pixels(self) -> int:
        return int(self.counts.sum()) + self.nan + self.infinite

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct rounded values in ascending order, and the count of each."""
        occupied = np.flatnonzero(self.counts)
        key = occupied.astype(np.uint32) << 12
        bits = np.where(key >> 31, key & 0x7FFFFFFF, ~(key | 0xFFF))
        return bits.view(np.float32).astype(np.float64), self.counts[occupied]

    def quantile(self, share: float) -> float:
        """Smallest value that at least this share of all values does not exceed; NaN without values."""
        return _quantile(*self.distinct(), share)

    @property
    def sigma(self) -> float:
        """1.4826 times the median absolute deviation from the median: the sigma of a normal distribution."""
        values, counts = self.distinct()
        deviation = np.abs(values - self.quantile(0.5))
        order = np.argsort(deviation)
        return 1.4826 * _quantile(deviation[order], counts[order], 0.5)


def _quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    cumulative = counts.cumsum()
    return float(values[np.searchsorted(cumulative, share * cumulative[-1])]) if len(counts) else np.nan
