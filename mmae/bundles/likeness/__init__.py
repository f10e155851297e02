"""How like the galaxies that a model was trained on others are: one by one, and together."""
