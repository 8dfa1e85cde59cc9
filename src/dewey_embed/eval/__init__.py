"""Measuring embedding models: tasks, scores, audits and the report."""
