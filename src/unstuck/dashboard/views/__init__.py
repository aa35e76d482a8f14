"""The pages: each view reads a URL, asks for what it shows, and renders it."""
