"""The documentation; `docs.generate` writes its generated pages."""
