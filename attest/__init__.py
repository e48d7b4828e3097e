"""Statements, envelopes and keys: who says it. No torch."""
