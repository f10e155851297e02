"""A run that makes a model: recipe, data, ranks, state, logs."""
