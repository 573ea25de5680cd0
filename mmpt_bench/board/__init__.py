"""From records to leaderboards: rows, cells, ranks, contrasts, published scores.

Files and text are written in `board/writers/`; figures are drawn in `figures/`.
Start with from_records.py.
"""
