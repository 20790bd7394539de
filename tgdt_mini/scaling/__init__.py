"""One run on several processes, large batches on small cards, and galleries past one machine."""
