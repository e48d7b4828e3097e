"""Benchmark claims: results files read, bound to weights, run, replayed, and asked for at a gate."""
