"""What fuzzing found stays found; and the fuzzers' seeds are read or refused, which is all."""

from pathlib import Path

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).parent / "found"


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_fuzzer_found_is_read_or_refused(target: str) -> None:
    inputs = [path.read_bytes() for path in sorted((FOUND / target).glob("*"))]
    for data in [b"", *SEEDS[target][:12], *inputs]:
        TARGETS[target](data)  # lets out whatever is no YqcError


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()
    assert all(SEEDS.values())
