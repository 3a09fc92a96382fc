"""One compile, around its passes: inputs, outputs, measurements."""
