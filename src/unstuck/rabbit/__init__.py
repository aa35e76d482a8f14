"""What RabbitMQ does for us: its queues, its delays, and what it drops."""
