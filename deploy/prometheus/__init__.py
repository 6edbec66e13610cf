"""Alerts for Prometheus, and their check."""
