"""interop/answers"""
