"""The command line: a file a command, options in, calls of the public functions out, printing.

No logic: api.py has the functions; nothing imports this package.
Start with main.py, then the file of the command.
"""
