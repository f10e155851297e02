"""Cutting: a cutout store out of coadds and an object table, or out of cutouts that survey people hold."""
