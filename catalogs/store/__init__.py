"""The cutout store: its format, writing, reading and inspection."""
