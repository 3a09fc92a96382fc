"""yqc from Python: a session, the commands as functions, and what they return.

python examples/from_python.py model.pt data.yaml
"""

import sys
import tempfile
from pathlib import Path

import yqc


def main(model: str, data: str, folder: Path) -> None:
    """Compile a model twice, look at what became of it, and time both files."""
    session = yqc.Session(model, data=data)
    results = [
        session.compile(passes, output=folder / f"{passes}.onnx", latency=False, html=False)
        for passes in ("fuse", "int8")
    ]
    for result in results:
        accuracy = result.report.accuracy
        print(result.files.onnx.name, result.report.size.file_bytes, accuracy.compiled)

    print(yqc.diff(model, passes="fold-bn").ops)
    print(yqc.explain("fold-bn", model))
    print(yqc.lint(results[1].files.onnx, target="onnxruntime"))
    print(yqc.bench([result.files.onnx for result in results], runs=5))
    print(yqc.evaluate(results[1].files.onnx, data).scores.map)

    try:
        yqc.compile(model, "int8", calib_images=-3)
    except yqc.YqcError as error:
        print(error)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(sys.argv[1], sys.argv[2], Path(made))
