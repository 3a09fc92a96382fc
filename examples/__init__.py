"""The examples, installed as `yqc_examples`: `python -m yqc_examples` copies them into a folder.

- `from_python`: the commands as functions
- `custom_pass`, `register_block`: a pass and a block of one's own
- `finetune`, `on_device`: training of a rewritten graph; a file run by NumPy and a runtime
- `yolov7_study`: schemes, granularities and bits of weights
- `shapes/`: the small detector and its data set
- `targets/`: devices
- `plugin/`: a package of passes
"""
