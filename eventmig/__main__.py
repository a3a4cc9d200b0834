"""`python -m eventmig` is the command line."""

import sys

from eventmig.cli import main

if __name__ == "__main__":
    sys.exit(main())
