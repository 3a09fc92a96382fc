"""Read every hostile case in this one process, and print what it cost, as JSON.

Run as a script, so that memory is that of the reading alone. An audit hook notes whatever would run
code: processes, shells, `exec`, `compile`, sockets, and imports that the reader does not need.
"""

import functools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tests.models import hostile_models
from tests.models.checkpoints import make, save
from tests.models.hostile import forbidden, legacy, no_storage, zipped
from tests.models.hostile_programs import BROKEN
from yqc.errors import YqcError
from yqc.models import load as loading
from yqc.models.pickles.read import read_checkpoint
from yqc.models.register import known

WATCHED = ("os.", "subprocess.", "exec", "compile", "pickle.", "socket.", "shutil.", "ctypes.dl")
events: list[str] = []
watching: list[bool] = []


def note(event: str, args: object) -> None:
    if watching and event.startswith(WATCHED):
        events.append(f"{event} {args!r}")


def tried(action: Callable[[], object]) -> tuple[str, float]:
    """What came of it (`read`, `refused`, or the name of an error), and its CPU seconds."""
    began = time.process_time()
    try:
        action()
        outcome = "read"
    except YqcError:
        outcome = "refused"
    except Exception as error:  # noqa: BLE001  # to be named in the report
        outcome = f"{type(error).__name__}: {error}"
    return outcome, time.process_time() - began


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    sound = save(folder / "sound.pt", make(hostile_models.SPEC), "ultralytics", names=["a", "b"])
    tree = read_checkpoint(sound, known)
    path = folder / "x.pt"
    "x".encode("cp437")  # a codec of zip archives, a module that is executed when first used
    path.write_bytes(legacy(b"\x80\2" + BROKEN["bytes of a wrong code"][1] + b"."))
    for warm in (sound, path):  # A first run may import a codec, which executes a module.
        tried(functools.partial(loading.load, warm))
    files = [(f"forbidden {name}", data) for name, _, data in forbidden()]
    for name, (_, part) in BROKEN.items():
        program = b"\x80\4" + part + b"."
        files.append((f"broken {name} zip", zipped(program)))
        files.append((f"broken {name} legacy", (legacy if b"cpu" in part else no_storage)(program)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(note)
    outcomes: dict[str, tuple[str, float]] = {}
    for name, data in files:
        path.write_bytes(data)
        watching.append(True)
        outcomes[name] = tried(lambda: loading.load(path))
        watching.clear()
    for name, changed in hostile_models.cases(tree):
        with mock.patch.object(loading, "read_with_sha256", lambda *_, found=changed: (found, "")):
            outcomes[f"model {name}"] = tried(lambda: loading.load(sound))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    left = sorted(p.name for p in folder.iterdir()) + sorted(
        p.name for p in Path().glob("was-here")
    )
    print(json.dumps({"outcomes": outcomes, "mib": grown / 1024, "events": events, "left": left}))  # noqa: T201


if __name__ == "__main__":
    main()
