"""Toys: the smallest things that use an interface, so that tests show what it carries."""
