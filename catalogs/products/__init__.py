"""Data products: photo-z catalogues, embeddings, and the columns and flags in them."""
