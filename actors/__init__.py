"""What runs: mailboxes, writer, background actors, listener and their supervision."""
