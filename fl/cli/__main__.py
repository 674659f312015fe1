"""`python -m fl.cli`: the command `secagg` where it is not installed. Nothing else belongs here."""

from fl.cli import main

main()
