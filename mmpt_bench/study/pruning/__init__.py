"""Image tokens left out before the language model: scores and time against the share that stays.

Start with prune.py.
"""
