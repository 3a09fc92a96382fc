"""Which channels of a graph must be removed together."""
