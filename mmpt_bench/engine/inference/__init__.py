"""Answers of a model: the greedy reply, and the probability of each legal answer.

Replies are read and scored in `evaluation/`.
Start with predict.py; plain.py is the reference that the shared way is compared with.
"""
