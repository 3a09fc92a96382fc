"""Passes, recipes and pipelines.

In reading order:

- `base`: passes, recipes, and the context that they work in.
- `state`: what a graph is known to be.
- `options`: options of a pass, to and from text.
- `values`: their types, and their values in text and in Python.
- `grammar`: pipeline text to names and options.
- `pipeline`: parsing, expansion of recipes, and the run of passes.
- `order`: which passes can run behind which, and which have nothing to do.
- `step`: one pass at work, and watchers of it.
- `records`: rewrites, refusals and sentences that passes record.
- `layer_values`: what nodes compute for images, and gradients, for passes.
- `watchers`: verification, printing, snapshots, reproducers.
- `registry`: passes by name, from this package, plugins and files.
- `resume`: graphs between passes, kept for a rerun.
- `prefixes`: graphs behind first passes, kept for other pipelines.
- `replay`: a failed pass, run again from its reproducer.
- `space`: what a search may do with a pass.
- `new_pass`: the file of a new pass.
"""

from yqc.pipeline.base import Workload
from yqc.pipeline.options import format_item
from yqc.pipeline.space import Space
from yqc.pipeline.values import Bounds, ByteSize, Count, Duration, Share, format_value
from yqc.progress import Stage

__all__ = [
    "Bounds",
    "ByteSize",
    "Count",
    "Duration",
    "Share",
    "Space",
    "Stage",
    "Workload",
    "format_item",
    "format_value",
]
