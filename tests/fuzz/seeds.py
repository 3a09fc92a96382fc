"""Inputs that a fuzzer starts from: sound ones, of every form."""

import json

from tests.models.hostile import forbidden, text
from tests.models.hostile_programs import BROKEN, F4, array, tensor

YAMLS = (
    b"path: .\ntrain: images\nval: images\nnames: [a, b]\n\x000 .5 .5 .1 .1\n1 .1 .1 .2 .1 .3 .4\n",
    b"train: [images, ../images]\nval: images/a.png\nnc: 2\nnames: {0: a, '1': b}\n\x001 0 0 0 0\n",
    b"names: &a {0: x}\nval: list.txt\ntrain: !!str images\nx: *a\n<<: {path: images}\n\x00",
)
COCO = {
    "images": [{"id": 1, "file_name": "images/a.png"}, {"id": "b", "file_name": "images/b.png"}],
    "annotations": [
        {"image_id": 1, "category_id": 7, "bbox": [0, 1, 2.5, 3], "area": 4, "iscrowd": 1},
        {"image_id": "b", "category_id": 9, "bbox": [0, 1, 2, 3]},
    ],
    "categories": [{"id": 7, "name": "x"}, {"id": 9, "name": "y"}],
}
TEXTS = (
    "int8{ranges=mse skip=model.0|model.1*}, fold-bn{min-var=0.5}",
    'reparam,dce,observe{skip="a b"},calibrate{ranges=percentile},bias-correct,quantize',
    "slim",
    "equalize{}",
)
PROGRAMS = (
    tensor(),
    array(F4, b"K\1\x85", text("abcd")),
    b"}" + text("a") + b"K\1s",
    b"]q\0(K\1Ne",
)

SEEDS: dict[str, list[bytes]] = {
    "checkpoint": [
        *(bytes([k]) + b"\x80\4" + program + b"." for k in range(5) for program in PROGRAMS),
        *(b"\0\x80\4" + program + b"." for _, program in BROKEN.values() if len(program) < 2000),
        *(b"\5" + data for _, _, data in list(forbidden())[::9]),
    ],
    "model": [bytes([m, 0, k, v, 3]) for m in range(7) for k in range(0, 250, 50) for v in (3, 40)],
    "options": [line.encode() for line in TEXTS],
    "data_yaml": list(YAMLS),
    "coco_json": [json.dumps(COCO).encode()],
}
