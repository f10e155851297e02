"""A survey's run: plan, tiles, scheduler, workers, Ray, index."""
