"""What a task is: metrics, parse rules, scoring, and the conformance suite of tasks.

The tasks themselves are files in the top-level `tasks/`; models are asked in `engine/inference/`.
Start with task.py; whether a reply is right is decided by parsing.py and metrics.py.
"""
