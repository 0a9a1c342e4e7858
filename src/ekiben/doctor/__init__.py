"""What is in the way of using Ekiben here or in an environment: checks, each with what to do next."""
