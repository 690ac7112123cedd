"""One folder a family of the catalog, one file a paper."""
