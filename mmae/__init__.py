"""The commands (train, export, infer, evaluate, ...), a file each, and below them the rooms they work in."""

from importlib.metadata import PackageNotFoundError, version

from mmae import environment

environment.set_defaults()

try:
    __version__ = version("mmae-survey")
except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
    __version__ = "0+unknown"
