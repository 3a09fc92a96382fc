"""The report knows only numbers: it loads fast, and without the packages that made them."""

import subprocess
import sys

import yqc.report

SCRIPT = """
import sys
import yqc.report
yqc.report.Environment.here(threads=1, seed=0)
heavy = {"torch", "onnx", "onnxruntime", "onnxsim", "numpy", "PIL", "yqc_passes"}
print(sorted(heavy & set(sys.modules)))
"""


def test_needs_neither_torch_nor_onnx() -> None:
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", SCRIPT],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_offers_what_it_names() -> None:
    assert sorted(yqc.report.__all__) == yqc.report.__all__
    assert all(hasattr(yqc.report, name) for name in yqc.report.__all__)
