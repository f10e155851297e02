"""Data products on disk: what a survey hands in, what we hand out."""
