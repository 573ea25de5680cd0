"""Resampling of images and seeds, intervals, differences, and what may be claimed; numpy and scipy alone.

No records and no tables: `board/` applies this to results.
Start with resampling.py, then claims.py.
"""
