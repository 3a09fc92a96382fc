"""Pipelines from a text with lists of values: `int8{ranges=[relevance,mse]}` is two of them.

Every option whose value is a list takes each element in turn; several such options are combined.
An option that is a list itself has its lists within the list:
`keep=[[model.9*,model.22*],[model.9*]]`.
"""

import itertools

from yqc.errors import PipelineError
from yqc.pipeline.grammar import LIST, caret, split
from yqc.pipeline.values import split_list

MOST = 100_000
"""Pipelines of a grid at most. A study has hundreds; half or double of it changes only which slips
of the pen are refused before they fill the memory."""


def expand_grid(text: str) -> list[str]:
    """Return the pipelines of a grid, the last option varying fastest.

    Raises:
        PipelineError: the text does not follow the grammar, a list is empty, or there are too many.
    """
    pieces: list[list[str]] = []
    at, count = 0, 1
    for setting in (one for item in split(text) for one in item.settings):
        if not LIST.fullmatch(setting.value):
            continue
        values = split_list(setting.value)
        if not values:
            raise caret(
                f"{setting.key!r} has no values", text, setting.value_at, len(setting.value)
            )
        pieces += [[text[at : setting.value_at]], values]
        at, count = setting.value_at + len(setting.value), count * len(values)
        if count > MOST:
            raise PipelineError(f"the grid {text!r} is more than {MOST} pipelines; split it")
    return ["".join(parts) for parts in itertools.product(*pieces, [text[at:]])]
