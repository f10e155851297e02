"""Training runs: recipe, data, ranks, state, logs."""
