"""engine/forward"""
