"""Data on disk: the input from surveys, and the products written from it."""
