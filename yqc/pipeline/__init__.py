"""Passes, recipes and pipelines.

In reading order:

- `base`: passes, recipes, and the context that they work in.
- `options`: options of a pass, to and from text.
- `grammar`: pipeline text to names and options.
- `pipeline`: parsing, expansion of recipes, the order of passes, and their run.
- `step`: one pass at work, and watchers of it.
- `records`: rewrites, refusals and sentences that passes record.
- `watchers`: verification, printing, snapshots, reproducers.
- `registry`: passes by name, from this package, plugins and files.
- `resume`: graphs between passes, kept for a rerun.
- `replay`: a failed pass, run again from its reproducer.
- `new_pass`: the file of a new pass.
"""

from yqc.pipeline.options import Duration, Share, format_item, format_value

__all__ = ["Duration", "Share", "format_item", "format_value"]
