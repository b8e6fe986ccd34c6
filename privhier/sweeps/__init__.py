"""Many runs of one base configuration: what to vary, who works, what is kept."""
