"""Statistics of any number of pixels in little memory."""

from dataclasses import dataclass, field

import numpy as np

HALF_MAX = float(np.finfo(np.float16).max)


@dataclass
class Flux:
    """Statistics of any number of float32 values in 8 MB.

    Values are counted after rounding to 12 binary digits, so that quantiles are good to 0.02 %; least and
    most are exact. All are of the finite values.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(2**20, np.int64), repr=False)
    """How often each rounded value occurs, from the most negative one."""
    least: float = np.nan
    most: float = np.nan
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
            self.least = float(np.fmin(self.least, finite.min()))
            self.most = float(np.fmax(self.most, finite.max()))
            bits = finite.view(np.uint32)
            bits = bits + np.uint32(0x7FF) + (bits >> 12 & 1)  # round to nearest, ties to even
            order = np.where(bits >> 31, ~bits, bits | 0x80000000) >> 12  # as floats compare, so do these
            self.counts += np.bincount(order, minlength=len(self.counts))

    @property
    def pixels(self) -> int:
        return int(self.counts.sum()) + self.nan + self.infinite

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Rounded values in ascending order, and how often each occurs."""
        found = np.flatnonzero(self.counts)
        order = found.astype(np.uint32) << 12
        bits = np.where(order >> 31, order & 0x7FFFFFFF, ~(order | 0xFFF))
        return bits.view(np.float32).astype(np.float64), self.counts[found]

    def quantile(self, share: float) -> float:
        """The least value that at least this share of all values does not exceed; NaN without values."""
        return _quantile(*self.distinct(), share)

    @property
    def sigma(self) -> float:
        """1.4826 times the median absolute deviation from the median: the sigma of a normal distribution."""
        values, counts = self.distinct()
        deviation = np.abs(values - self.quantile(0.5))
        order = np.argsort(deviation)
        return 1.4826 * _quantile(deviation[order], counts[order], 0.5)


def _quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    upto = counts.cumsum()
    return float(values[np.searchsorted(upto, share * upto[-1])]) if len(upto) else np.nan
