"""What is handed out: photo-z catalogues, embeddings, and what stands in them."""
