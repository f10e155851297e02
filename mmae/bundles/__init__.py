"""A trained model as programs: compiled, calibrated, proved, opened, run."""
