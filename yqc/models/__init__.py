"""Models: checkpoints, twins of their blocks, tracing, and graph files."""
