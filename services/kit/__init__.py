"""What every service stands on: journal, bus, host, runner, configuration, errors, logs."""
