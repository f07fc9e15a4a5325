"""The commands of `python -m monitoring`: thin shells, one module for each thing they are about."""
