"""Describe a removal of channels: what goes from every group, and what stays whole."""

import numpy as np

from yqc.pruning.sizes import SizeCounter
from yqc.pruning.surgery import Keep
from yqc.pruning.trials import PruningTask
from yqc.report.human import byte_count, plural

FLOAT32 = 4
"""Bytes of a parameter before anything is quantized."""


def describe_removal(task: PruningTask, keep: Keep, criterion: str) -> list[str]:
    """List the groups of which channels go: how many of how many, and the bytes, a line each.

    Bytes are those of weights in float32 that go with a group alone; where both sides of a weight
    become fewer, all groups together save less than their sum.
    """
    blocks, counter = task.channels.blocks, SizeCounter(task.gm, task.channels, "params")
    whole, share = FLOAT32 * counter.whole, counter.share_removed(keep)
    rows = []
    for block in blocks:
        own = slice(block.first, block.first + block.count)
        if keep[own].all():
            continue
        alone = np.ones_like(keep)
        alone[own] = keep[own]
        saved = whole * counter.share_removed(alone)
        rows.append((saved, f"{block.count} -> {int(keep[own].sum())}", task.maker(block).target))
    total = f"{byte_count(round(whole * share))} of {byte_count(round(whole))}"
    lines = [f"would go by {criterion}: {total}, {share:.1%} of the parameters"]
    lines.append(f"{'channels':>12}  {'bytes':>8}  made by")
    for saved, change, name in sorted(rows, key=lambda row: -row[0]):
        lines.append(f"{change:>12}  {byte_count(round(saved)):>8}  {name}")
    stay = sum(not b.pin for b in blocks) - len(rows)
    if stay:
        lines.append(f"{plural(stay, 'more group')} of channels that could go matter more")
    return [*lines, "tied together:"]
