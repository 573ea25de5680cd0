"""A board as CSV, Markdown, LaTeX, JSON and terminal tables.

The HTML page is in `report/`.
Start with numbers.py (how a number is shown).
"""
