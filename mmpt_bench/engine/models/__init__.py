"""A folder in Hugging Face form as a backbone: its parts, its processor, its chat template, what is kept of images.

Adapters and prompts are put on it in `engine/adapters/` and `engine/prompts/`.
Start with backbone.py; a new model family is a line of families.py.
"""
