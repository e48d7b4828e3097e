"""Model cards against the manifest: the card is the claim, the signed lineage is the authority."""
