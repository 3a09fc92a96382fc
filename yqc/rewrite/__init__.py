"""Rewriting fx graphs: a pattern, a check that may refuse a match, and a replacement.

    CONV_BN = module(nn.BatchNorm2d, module(nn.Conv2d, var("x"), name="conv"), name="bn")

    def fold(gm: fx.GraphModule, conv: Call[nn.Conv2d], bn: Call[nn.BatchNorm2d]) -> fx.Node: ...

    def obstacle(gm: fx.GraphModule, conv: Call[nn.Conv2d]) -> str | None: ...

    rewrite_all(gm, ctx, CONV_BN, fold, check=obstacle, what="folded into {conv}")

In reading order:

- `patterns`: what to look for (`module`, `function`, `method`, `var`, `through`)
- `matching`: where it is found (`matches`, `Match`)
- `rewriting`: replacing it (`rewrite_all`)
"""

from yqc.rewrite.matching import Match, matches
from yqc.rewrite.patterns import Pattern, function, method, module, through, var
from yqc.rewrite.rewriting import rewrite_all

__all__ = [
    "Match",
    "Pattern",
    "function",
    "matches",
    "method",
    "module",
    "rewrite_all",
    "through",
    "var",
]
