"""Runnable stories: real histories upcast, verified and compared with what they became."""
