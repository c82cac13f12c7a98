"""`python -m schemer`: the same as the command `schemer`."""

from schemer.cli import main

main()
