"""Scores and their intervals; imports nothing of ours."""
