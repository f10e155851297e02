"""The same programs on a cluster."""
