"""The services of coldstream and its command line."""
