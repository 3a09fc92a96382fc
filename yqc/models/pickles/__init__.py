"""The safe checkpoint reader: pickles without running them."""
