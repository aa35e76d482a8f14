"""The dashboard: pages that show what happened and what can be done about it."""
