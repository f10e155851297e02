"""The page of `mmae report`: what catalogues hold, how good they are, and whether to believe them."""
