"""The model and what is done with it: train, export, infer, evaluate."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mmae-survey")
except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
    __version__ = "0+unknown"
