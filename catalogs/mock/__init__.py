"""A mock survey: galaxies and quasars whose image and spectrum are two views of one object.

Every object has one spectral energy distribution (SED) at one redshift. Seen through the passbands of HSC it
gives the colours of the image, through a fibre of DESI the spectrum, so a model that learns redshifts here
learns them from physics: breaks that move through the bands, emission lines, the Lyman-alpha forest. Read
sed -> population -> image, spectrum -> survey; instruments.py holds what telescopes are like.
"""
