"""Few-bit weights of graphs: which layers, in which order, against which inputs.

In reading order:

    options      what the passes share with their recipes
    pack         the steps of a packing pass: choose layers, choose schemes, round, replace
    budget       choose a scheme for each layer within a budget
    allocate     the least damage within a number of bytes (Lagrange)
    rounder      round all layers of a graph
    inputs       the inputs of chosen convolutions on calibration images, or by batch norms
    walk         run the float and the rounded graph side by side, node by node
    rice_steps   damage and bits of each layer at a few prices, rounded to nearest
    rice_coding  layers in codes of variable length
    rice         round the weights of a graph to such codes within a number of bytes
    pack_rice    the steps of the pass that does so: choose layers, find the budget, round, replace
    rewrite      replace a convolution's module by a function of packed weights
"""
