"""From a request to records: options, plan, estimate, execution, events.

Boards are built in `board/`; experiments over several requests are in `study/`.
Start with plan.py, then execute.py.
"""
