"""MG-Bench: judges pictures, whoever made them. Imports nothing else of this package."""
