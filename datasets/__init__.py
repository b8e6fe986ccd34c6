"""The data sets, each read in its official on-disk layout."""
