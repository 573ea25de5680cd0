"""`mmpt-bench compare`: which of two rows is better, as data and as text.

Start with compare.py.
"""
