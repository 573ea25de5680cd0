"""Forms of prompts compared on the same items.

Start with prompts.py.
"""
