"""`yqc tune`: search the pipelines that are small, fast and accurate enough.

`space`    pipelines that may be tried, and the TOML file that lists them
`trials`   one pipeline, compiled and judged on the images held out
`runner`   trials as jobs of processes
`pareto`   points that no other one beats, and the best within a budget
`search`   what is tried next, and the journal of what was found
`front`    the points of the front, as they are shown
`page`     the same as an HTML page
`question` what is asked, checked before any work
`files`    the files of the front, compiled and measured once more
`tune`     all of these: from the question to the files
"""

from yqc.tuning.front import Front, FrontPoint
from yqc.tuning.question import Question, make_question, read_time
from yqc.tuning.space import SearchSpace
from yqc.tuning.trials import Compiles
from yqc.tuning.tune import count_held_out, training_steps, tune

__all__ = [
    "Compiles",
    "Front",
    "FrontPoint",
    "Question",
    "SearchSpace",
    "count_held_out",
    "make_question",
    "read_time",
    "training_steps",
    "tune",
]
