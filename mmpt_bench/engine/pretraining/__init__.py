"""How the embedded model's weights are made, and probed.

The scenes and texts come from `embedded/`.
Start with pretrain.py.
"""
