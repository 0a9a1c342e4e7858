"""The BentoML services. A Bento holds this folder and its model, nothing else of the project."""
