"""For tests of passes: exact text, equal numbers, and small traced nets. Works without pytest.

    def test_it() -> None:
        gm = traced(nets.conv_bn(), (1, 3, 8, 8))
        want = run(gm)
        done = apply(MyPass(), gm)
        assert_text(gm, \"\"\"
            %x: f32[1,3,8,8] = input
            ...
        \"\"\")
        assert_same_numbers(run(gm), want, tolerance=1e-5)
        assert done.skips == [("bn", "conv has other users")]

`assert_text(gm, Path("golden/it.txt"))` compares with a file, which `pytest --update-golden`
writes.

In reading order:

- `nets`: small nets with seeded parameters
- `task_nets`: the same of the tasks beyond detection
- `checks`: `traced`, `apply`, `run`, the assertions
- `golden`, `plugin`: pytest's option `--update-golden`
"""

from yqc.testing import nets, task_nets
from yqc.testing.checks import (
    Applied,
    apply,
    assert_same_numbers,
    assert_text,
    calibrated,
    images,
    run,
    traced,
)

__all__ = [
    "Applied",
    "apply",
    "assert_same_numbers",
    "assert_text",
    "calibrated",
    "images",
    "nets",
    "run",
    "task_nets",
    "traced",
]
