"""The report: a results folder as one HTML file that needs nothing else, for people who want to look before they trust.

Python decides what is said (`verdict`, `missing`, `audit`, `costs`, `rerun`, `browse`), `content` gathers it, and
`write` turns it into bytes with the templates in `page/`. The same records give the same bytes. No torch.
"""
