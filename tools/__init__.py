"""What maintainers run: checks of types, releases, uploads. Nothing of it is installed."""
