"""What several attackers are built of: columns, networks and their training, selection, priors."""
