"""Reads across stores: what belongs to a document or a node, in one call at one snapshot."""
