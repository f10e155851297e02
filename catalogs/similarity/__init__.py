"""Which galaxies are alike: nearest neighbours among the embeddings of any number of tiles.

tiles (products as one run of rows, and their cutouts) -> exact, a pass over all vectors, or index, by which a
search reads few of them (builder writes it) -> page (cutouts, table) -> the commands.
"""
