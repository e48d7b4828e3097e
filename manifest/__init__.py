"""Bytes to tensors to digests to documents: what a release says. No torch, no network, no keys."""
