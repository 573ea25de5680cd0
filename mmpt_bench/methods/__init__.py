"""The interface of a method, the catalog of methods, any method of PEFT, and adapters trained elsewhere.

The built-in methods are mmpt.py and the files of the top-level `baselines/`.
Start with method.py.
"""
