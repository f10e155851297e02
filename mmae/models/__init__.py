"""What a galaxy is turned into: our model, the paper's, and their parts."""
