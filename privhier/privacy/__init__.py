"""Releases, their noise, their account, and what the account promises."""
