"""Weights in few bits: schemes, grids, Hessian-guided rounding, packing."""
