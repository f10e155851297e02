"""The parts that models are made of: what is measured of a galaxy, and what is computed with it."""
