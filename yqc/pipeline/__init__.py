"""Passes, recipes and pipelines: what somebody who writes a pass meets."""
