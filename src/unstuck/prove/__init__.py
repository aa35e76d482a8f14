"""What `manage.py unstuck prove` does; no worker of the project imports any of it."""
