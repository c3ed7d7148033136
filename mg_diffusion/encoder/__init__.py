"""The parts of `MGEncoder`: a file for each granularity, and what they share."""
