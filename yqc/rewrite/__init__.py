"""Rewriting fx graphs by pattern, check and replacement."""

from yqc.rewrite.matching import (
    Match,
    Pattern,
    function,
    matches,
    method,
    module,
    rewrite_all,
    var,
)

__all__ = ["Match", "Pattern", "function", "matches", "method", "module", "rewrite_all", "var"]
