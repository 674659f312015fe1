"""Engines: what carries a round's messages (`fl.round.Engine`). `memory` plays every party in one process; the engine
on Flower lives in `fl.flower`, beside everything else that needs Flower.
"""
