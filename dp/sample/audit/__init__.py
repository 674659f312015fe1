"""Is a gradient really a sum of clipped gradients of single examples? Checks on the model and loop at hand.

Belongs here: the check before training (`probe`), the audit that a user runs (`per_example`), the worst example
that is found (`adversary`), a measured lower bound (`canary_run`). Random numbers here are test inputs, never noise
or batches of a private run. Nothing is imported by this file: the engine takes `probe` from here.
"""
