"""Where models look, scored.

Start with explain.py.
"""
