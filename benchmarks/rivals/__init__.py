"""The same model behind other servers, for benchmarks to compare with."""
