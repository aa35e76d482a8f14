"""What `manage.py unstuck dev` runs on; none of it is used in production."""
