"""The former name of `yqc.rewrite`, for plugins that import it."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("yqc.rewrite")
