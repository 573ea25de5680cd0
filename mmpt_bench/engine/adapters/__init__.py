"""What every method does to a backbone: freeze, open, save, load, put back; and the conformance suite of methods.

The methods themselves are mmpt.py, the top-level `baselines/`, and `methods/`.
Start with attachment.py.
"""
