"""Find the objects in a picture with numpy and onnxruntime alone, as on a device.

    yqc compile best.pt --passes int8 --decode raw -o best.onnx
    python on_device.py best.onnx picture.npy

`runtime.py` of yqc may lie beside this file, copied; nothing else of yqc is needed. The picture is
a NumPy array, uint8 [h, w, 3] of RGB, as a camera or a decoder of images hands it on.
"""

import sys

import numpy as np
import onnxruntime as ort

try:
    from runtime import crop, decode, find, letterbox  # type: ignore[import-not-found]
except ImportError:
    from yqc.runtime import crop, decode, find, letterbox


def main(model: str, picture: str) -> None:
    """Print class, score and box of each object."""
    session = ort.InferenceSession(model)
    metadata = session.get_modelmeta().custom_metadata_map
    given = session.get_inputs()[0]
    fit = crop if metadata.get("task") == "classify" else letterbox
    image, placement = fit(np.load(picture), tuple(given.shape[2:]))
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {given.name: image})
    if "yqc.heads" in metadata:
        arrays = decode(dict(zip(names, arrays, strict=True)), metadata["yqc.heads"])
    found = find(arrays, metadata, placement)
    for i, score in enumerate(found.scores):
        box = found.boxes[i].round(1).tolist() if len(found.boxes) else []
        print(found.classes[i], f"{score:.3f}", box)


if __name__ == "__main__":
    main(*sys.argv[1:])
