"""What every engine over a network shares: its messages, its two sides, what each keeps in its own files.

What belongs here: who is asked and answers in a sum, checks of a node, a node's site. What does not: any framework's
types and calls (`fl.flower`, `fl.nvflare`), how a round goes (`fl.round`).
"""
