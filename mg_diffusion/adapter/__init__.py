"""What `MGAdapter` is made of."""
