"""The words of data: samples, predictions, training examples, rows, data sets, images that open late, tables.

Where rows and training data come from is decided in `sources/`; what is right is decided in `evaluation/`.
Start with samples.py and dataset.py.
"""
