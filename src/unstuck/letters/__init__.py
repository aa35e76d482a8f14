"""Dead letters: what is buried, the queue that keeps it, and the way back."""
