"""What benchmarks/service.py is made of: the models, the servers, and the load on them."""
