"""A second process, which imports what takes long meanwhile and then does what needs it.

Importing torch keeps one core busy for two seconds, and so nearly do bokeh and onnxsim together, of
which a compile needs one function each. On a machine with two cores that need not take turns:

    with beside("onnxsim", "bokeh.plotting"):
        ...                                          # imports torch, works
        smaller = call("onnxsim:simplify", model)

Nothing but time depends on it. Outside of `beside`, on a single core, and where anything goes wrong
in the second process, `call` imports and calls the function here, and errors are those of here.
"""

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import IO, Any, cast

_START = "import sys; sys.path[:] = sys.argv[1].split('\\n'); from yqc.aside import serve; serve()"
"""What the process runs; its modules are found where they are found here, and nowhere else."""
_helpers: list["subprocess.Popen[bytes]"] = []


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def beside(*modules: str, without: str = "") -> Iterator[None]:
    """Have a second process for `call` for a while, which ends with it.

    Args:
        modules: what the process imports at once, by name.
        without: a module that it is not to import, whoever asks for it there.
    """
    if _helpers or cores() == 1 or getattr(sys, "frozen", False):  # frozen: no Python to start
        yield
        return
    with suppress(OSError):
        _helpers.append(_started(modules, without))
    try:
        yield
    finally:
        _drop()


def call(function: str, *args: object, **options: object) -> Any:  # noqa: ANN401  # whatever it is
    """Call a function, in the second process if there is one.

    Args:
        function: `module:name`.
        args: its arguments; they and what it returns can be pickled.
        options: by name.
    """
    if _helpers:
        helper = _helpers[0]
        try:
            _send(cast("IO[bytes]", helper.stdin), (function, args, options))
            return pickle.load(cast("IO[bytes]", helper.stdout))  # noqa: S301  # from our own code
        except (OSError, EOFError, pickle.PickleError, AttributeError, TypeError):
            _drop()
    return _called(function, args, options)


def serve() -> None:
    """Be the second process: import what the arguments name, answer calls, end with the first.

    A call that fails ends it, too.
    """
    _, _, without, *modules = sys.argv
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    gc.disable()
    if without:
        sys.modules[without] = cast("Any", None)  # Python's own way: importing it fails
    for module in modules:
        with suppress(Exception):  # it happens again where it is seen
            import_module(module)
    while True:
        try:
            function, args, options = pickle.load(sys.stdin.buffer)  # noqa: S301  # from `call`
            _send(answers, _called(function, args, options))
        except Exception:  # noqa: BLE001  # so does this
            os._exit(0)


def _called(function: str, args: tuple[object, ...], options: dict[str, object]) -> Any:  # noqa: ANN401
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)(*args, **options)


def _send(stream: IO[bytes], message: object) -> None:
    stream.write(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
    stream.flush()


def _started(modules: tuple[str, ...], without: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  # this Python, with our own code
        [sys.executable, "-c", _START, "\n".join(sys.path), without, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # an interrupt is told once, by the first process
    )


def _drop() -> None:
    """End the second process, whatever it is doing."""
    while _helpers:
        helper = _helpers.pop()
        helper.kill()
        helper.wait()
        for stream in (helper.stdin, helper.stdout):
            if stream is not None:
                with suppress(OSError):  # what was not sent yet
                    stream.close()
