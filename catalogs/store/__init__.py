"""The cutout store: its format, writing, reading, looking into it."""
