"""Fuzz one reader: python -m tests.fuzz.run TARGET [FOLDER] [libFuzzer options].

For half an hour: python -m tests.fuzz.run options /tmp/corpus -max_total_time=1800. What it finds
goes into tests/fuzz/found/TARGET/, where test_found.py runs it forever after. Needs `atheris`.
"""

import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.seeds import SEEDS

HERE = Path(__file__).parent


def main() -> None:
    name, *rest = sys.argv[1:]
    with atheris.instrument_imports(include=["yqc"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415  # instrumented while imported
    corpus = Path(
        rest.pop(0)
        if rest and not rest[0].startswith("-")
        else Path(tempfile.gettempdir()) / f"yqc-{name}"
    )
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    found = HERE / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    TARGETS[name](b"")  # what the first run imports does not count against the second's time
    limits = ["-timeout=5", "-rss_limit_mb=1024", f"-artifact_prefix={found}/"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, *rest], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
