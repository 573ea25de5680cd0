"""engine/inference"""
