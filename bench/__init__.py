"""The benchmark of eventmig: `make bench`. Not part of the wheel."""
