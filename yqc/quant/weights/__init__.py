"""Few-bit weights: schemes, grids, rounding by second moments, packing.

In reading order:

    scheme     the format in which a layer's weights are stored
    grid       the values that weights may take, and rounding to them
    grids      choose a grid: ranges by least squares, tables by k-means
    rounding   error feedback (GPTQ), coordinate descent, least-squares scales
    adaround   learn for each weight whether it is rounded up or down
    layer      all of these for the weight of one layer
    rounded    a rounded layer: weight, bias, error, damage
    statistics  covariance and mean of a layer's inputs; weights and bias that make up for errors
    sampling   which output positions to sample, weighted by relevance
    packing    codes of 1 to 8 bits in bytes
    rice       codes of variable length: Rice codes in planes
    rice_layer  steps at equal slope, and rounding with the lengths of codes in view
    ops        the operators that unpack weights
"""
