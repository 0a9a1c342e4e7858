"""W&B's graph: what each of its types answers, from the store.

One module per theme; queries.py and mutations.py are the roots.
"""
