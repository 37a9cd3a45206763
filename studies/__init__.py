"""Grids of experiments, a file each: `python main.py --mode study --config studies/NAME.py`."""
