"""What the pages read. Each function reads little, whatever the tables hold."""
