"""Metrics for Prometheus, and when to be told."""
