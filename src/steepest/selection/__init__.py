"""Selection: which data, in which order, with which weight. Pure functions Batch -> Batch."""
