"""A mock survey: galaxies and quasars, each with an image and a spectrum of the same object.

Every object has one spectral energy distribution (SED) at one redshift. Observed through the passbands of HSC
it gives the colours of the image, through a fibre of DESI the spectrum, so that a model learns redshifts from
physics: breaks that move through the bands, emission lines, the Lyman-alpha forest. Read sed -> population ->
image, spectrum -> objects -> survey; cameras.py and instruments.py have the properties of the telescopes.
"""
