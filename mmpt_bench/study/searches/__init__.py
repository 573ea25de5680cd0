"""Searches of learning rates: trials, choices, and whether they can be believed.

Start with search.py.
"""
