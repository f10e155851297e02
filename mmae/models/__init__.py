"""Models of galaxies, ours and the paper's, and their parts."""
