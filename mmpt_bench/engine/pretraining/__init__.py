"""engine/pretraining"""
