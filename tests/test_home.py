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


EARLY = """
import builtins, os, signal, sys
import yqc.__main__

load = builtins.__import__

def interrupted(name, *rest):
    if name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGINT)
    return load(name, *rest)

builtins.__import__ = interrupted
yqc.__main__.run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("module", ["yqc.commands.process", "contextlib", "yqc.cli", "typer"])
def test_an_interrupt_in_the_first_moments_shows_no_traceback(module: str) -> None:
    command = [sys.executable, "-c", EARLY, module, "passes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "yqc: interrupted; nothing was written\n"


def test_nothing_that_takes_long_is_imported_before_signals_are_handled() -> None:
    program = (
        "import sys; before = {*sys.modules}; import yqc.__main__; print({*sys.modules} - before)"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert not {"typing", "re", "pathlib", "importlib.util"} & {*eval(done.stdout)}  # noqa: S307
