"""What surveys hand in: GalaxiesML, DESI coadds, redshifts of a release."""
