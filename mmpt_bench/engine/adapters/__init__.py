"""engine/adapters"""
