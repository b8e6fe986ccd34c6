"""Scores, the result schema and the report; knows no attack."""
