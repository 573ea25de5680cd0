"""Experiments over runs: ablations, searches of learning rates, comparisons.

One run is planned and executed in `runs/`.
Start with ablate.py, search.py or compare.py.
"""
