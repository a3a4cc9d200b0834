"""The documentation, tested: every block runs, every link leads somewhere, no page is stale."""
