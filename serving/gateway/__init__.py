"""The online gateway: answers every valid request within the spec's budget.

It loads neither Feast nor data frames; `python -m serving.gateway` starts it.
"""
