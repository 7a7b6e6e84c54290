"""Resource estimates of compiled programs, also for devices that are not present."""
