"""Training a rewritten graph to answer as the float original does, without labels."""

from yqc.training import packed_weights  # noqa: F401  # registers how packed weights are trained
from yqc.training.distill import distill
from yqc.training.fake_quantize import Latent, latent
from yqc.training.plan import Outcome, Plan
from yqc.training.untouched import untouched

__all__ = ["Latent", "Outcome", "Plan", "distill", "latent", "untouched"]
