"""Readers of survey data: GalaxiesML, DESI coadds, redshifts of a release."""
