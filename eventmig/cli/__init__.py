"""The command line: argv → command → text or JSON, and an exit code. The only printer."""

from eventmig.cli.app import main

__all__ = ["main"]
