"""Other software: lmms-eval, the hub's result files, trackers, answers made elsewhere.

PEFT is not here: methods of PEFT are in `methods/` and `engine/prompts/`.
Start with the file that is called like the other software.
"""
