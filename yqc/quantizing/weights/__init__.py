"""Few-bit weights of graphs: which layers, in which order, against which inputs."""
