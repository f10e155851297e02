"""GalaxiesML images + DESI spectra -> GalaxiesML-Spectra, as in section 3 of Himes et al. (2025).

Read sky (positions that are close together) -> pairs (matches and cuts) -> cutflow (counts of each cut) ->
artefacts (corrected pixels of spectra) -> writer -> command.
"""
