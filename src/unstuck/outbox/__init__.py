"""The outbox: messages that are written with the transaction they belong to."""
