"""How good redshifts, p(z), images, spectra and lines are: metrics, tables, figures, reports."""
