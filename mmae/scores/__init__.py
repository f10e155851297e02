"""Metrics of redshifts, p(z), images, spectra and emission lines; their tables, figures and reports."""
