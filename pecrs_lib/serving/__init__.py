"""A trained model behind HTTP: the extra `serve`, off by default, bound to 127.0.0.1.

Stands behind `generation`: `microbatching` gathers requests, `service` says what can be asked and
answers it, `application` is the FastAPI around both.
"""
