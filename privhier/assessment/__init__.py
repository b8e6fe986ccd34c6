"""A trained network assessed: victims, views, attacks scored, claims."""
