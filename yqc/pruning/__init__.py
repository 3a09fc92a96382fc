"""Taking channels out of a detector: scores, surgery, correction, and how much to take."""
