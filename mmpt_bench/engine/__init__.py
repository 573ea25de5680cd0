"""Everything that imports torch: models, adapters, prompts, the shared forward pass, training, inference, pre-training.

No planning, no records: `runs/` calls this.
Start with models/backbone.py, then training/train.py and inference/predict.py.
"""
