"""What changes the state: devices, steps, epochs, a run, all runs."""
