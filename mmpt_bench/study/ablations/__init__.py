"""Ablations: what may vary, its runs, its board and its tables.

Start with ablate.py.
"""
