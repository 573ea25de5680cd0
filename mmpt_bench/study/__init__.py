"""Experiments over runs: a folder each for ablations, comparisons, searches, streams, prompts, protocols, explanations.

One run is planned and executed in `runs/`.
"""
