"""What the package can do, to look at: `python -m demo.showcase`."""
