"""One file per noun of the command line; `cli.py` puts them together."""
