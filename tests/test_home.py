"""What commands leave in the home of a user: nothing but yqc's own cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("given", "seen"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_unless_the_user_has_set_it(
    tmp_path: Path, given: str | None, seen: str
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    env |= {"HOME": str(tmp_path)} | ({} if given is None else {"ORT_DISABLE_TELEMETRY": given})
    program = "import os, yqc, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == seen
    assert given is not None or not list(tmp_path.iterdir())
