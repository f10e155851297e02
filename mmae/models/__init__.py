"""Models of galaxies, ours and the paper's: what they take and give, their losses, their weights on disk."""
