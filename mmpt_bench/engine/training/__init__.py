"""Training of one method on a backbone: loss, micro-batches, checkpoints, memory.

What is trained and when is decided in `runs/`; learning rates are searched in `study/`.
Start with train.py.
"""
