"""Membership inference: whether a record was trained on."""
