"""The toolkit on Flower: a client mod, a strategy wrapper and the two apps of a Federation.

What belongs here: everything that imports flwr. What touches more of it than its public names lies in
`compat`. What does not belong here: protocols, layers, training; they are the same in memory.
"""
