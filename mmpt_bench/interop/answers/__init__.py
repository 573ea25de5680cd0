"""Answers made elsewhere: read, matched to the official rows, scored.

Answers of our own runs are scored in `evaluation/`.
Start with forms.py.
"""
