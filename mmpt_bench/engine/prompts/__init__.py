"""engine/prompts"""
