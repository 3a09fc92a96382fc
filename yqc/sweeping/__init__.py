"""`yqc sweep`: models times pipelines, on this machine or a cluster, and one comparison.

`grid`    pipelines from a text with lists of values
`plan`    what is run: models, each with its settings and pipelines
`toml`    the same from a TOML file
`folder`  the folder of results, and the journal that `--resume` reads
`cells`   one model and pipeline as a job of a process
`timing`  times of the files, taken one at a time
`sweep`   all of these: from the plan to the comparison
"""

from yqc.sweeping.plan import Plan, plan_sweep
from yqc.sweeping.sweep import sweep
from yqc.sweeping.toml import read_plan

__all__ = ["Plan", "plan_sweep", "read_plan", "sweep"]
