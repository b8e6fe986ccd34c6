"""What a process must settle: its cores, how OpenMP waits, SIGTERM."""
