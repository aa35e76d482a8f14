"""Beat that cannot get stuck: one of several sends, and what is due is sent."""
