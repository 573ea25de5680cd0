"""What every package may use: errors, atomic files, hashing, locks, escaping, typed values, entries of a folder.

Nothing that knows what a task, a method or a run is: that starts in `data/` and `evaluation/`.
Start with errors.py (exit codes) and files.py (how anything reaches the disk).
"""
