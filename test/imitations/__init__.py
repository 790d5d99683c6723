"""Small imitations of corpora: their layout, their formats and their oddities, made on the spot."""
