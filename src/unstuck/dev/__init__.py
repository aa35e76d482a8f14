"""What `manage.py unstuck dev` runs on; no worker in production uses any of it."""
