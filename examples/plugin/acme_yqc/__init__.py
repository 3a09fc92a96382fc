"""Passes of the Acme company. Importing this package imports none of them."""
