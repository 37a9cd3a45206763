"""Experiments, a file each; `default.py` holds every field."""
