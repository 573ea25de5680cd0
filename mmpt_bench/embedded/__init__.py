"""The generated worlds and the miniature suite, and the weights that ship with the package.

How the weights are trained is in `engine/pretraining/`.
Start with suite.py (what is asked), then world.py (what is drawn).
"""
