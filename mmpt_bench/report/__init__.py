"""What a results folder says as a whole: the leaderboard's files, the HTML page, and results as data.

Single figures are drawn in `figures/`.
Start with leaderboard.py, then content.py.
"""
