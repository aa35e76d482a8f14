"""The worker: the only room, beside ``app.py``, that touches Celery's worker classes."""
