"""The Celery project that worker processes under test run."""
