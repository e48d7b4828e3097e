"""Recipes executed and compared, evidence and verdicts. The only room with torch."""
