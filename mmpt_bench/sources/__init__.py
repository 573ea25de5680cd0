"""What a name stands for: rows of a task, training data, a backbone's files; on disk, on the hub, or generated.

Nothing is trained or asked here, and no torch.
Start with prepared.py (everything that a request reads) and task_rows.py (the one decision which rows).
"""
