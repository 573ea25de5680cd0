"""How published papers ask and read.

Start with protocol.py.
"""
