"""GalaxiesML images + DESI spectra -> GalaxiesML-Spectra, as in section 3 of Himes et al. (2025).

Read sky (what lies close together) -> pairs (which are kept) -> cutflow (how many were not) -> artefacts
(what is mended in a spectrum) -> command.
"""
