"""One engine for all prompt methods: trained rows put in and taken out by hooks; and the same as methods of PEFT.

Which prompts a method has is said in its own file.
Start with bank.py.
"""
