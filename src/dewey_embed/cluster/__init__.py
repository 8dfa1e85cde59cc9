"""Many machines: documents from any storage, encoded on a Ray cluster, written to any storage."""
