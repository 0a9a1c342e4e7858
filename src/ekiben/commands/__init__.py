"""Groups of commands: thin shells over plain functions, as in ekiben.cli. What is heavy is imported inside them."""
