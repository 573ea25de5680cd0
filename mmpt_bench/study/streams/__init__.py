"""One task after another: streams and transfer.

Start with stream.py.
"""
