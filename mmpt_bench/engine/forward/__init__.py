"""What training and inference share: images prepared once, a frozen tower's states, the last layer's chosen rows.

Losses are in `engine/training/`, answers in `engine/inference/`.
Start with prepared_images.py.
"""
