"""The safe checkpoint reader: pickles are scanned and rebuilt as data, never run or imported.

Files in reading order:

    read          from a path to plain data and the hash of the bytes read
    scan          opcodes and the globals they name, nothing executed
    globals       the allow-list of globals, and the builders of what they make
    dill          what the pickler dill writes in its own ways
    machine       the opcodes, run with those builders only
    values        stand-ins for classes and objects, allowances of one file, safe names
    tensors       storages, tensors and parameters
    numpy_arrays  numpy arrays and scalars
    zip           the archive form of torch.save
    legacy        the form before PyTorch 1.6
    bounds        the last check: depth, size and kinds of the result
"""
