"""What is kept: recipes, keys, run folders, records, searched learning rates, ablation definitions, learning curves.

No tables: they are built from records in `board/`.
Start with record.py and keys.py (everything that names something by its content).
"""
