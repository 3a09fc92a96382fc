"""Models: from checkpoints, model YAMLs and modules to traced graphs.

Files in reading order:

    source         open any model as a traced graph
    load           from a checkpoint file to a detector ready to trace
    graph_files    graph files: a model that was traced, a snapshot of its graph behind passes
    pickles/       the safe reader of checkpoint files
    content        the model in what a file holds, and the settings beside it
    transforms     size and normalisation of a classifier's images
    weights        weights without an architecture: where they stand, how they are named
    split_weights  weights that torch.nn.utils stores in parts
    file_kinds     what a file that is no checkpoint is
    rebuild        modules from the pickled tree
    register       the twin of each pickled class, the user's own included
    torch_modules  modules of torch.nn from pickled attributes
    unknown        classes without a twin, and how to register one
    unused         refuse what a file holds and the rebuilt detector does not use
    detector       layers in a row, fed by earlier ones, and a head
    blocks/        twins of the projects' blocks
    heads/         twins of their heads, with decoding
    arch           detectors from model YAMLs
    arch_rows      one layer from one row of a YAML
    trace          from a module to an fx graph whose nodes know their shapes
    survey         facts of a checkpoint whose blocks are unknown
    bounded        a limit on what running a module may allocate
"""
