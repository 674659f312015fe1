"""The round of Flower's own SecAgg+ workflow, measured."""
