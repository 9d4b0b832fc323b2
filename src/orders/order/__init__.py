"""What an order is, on every side: the model, the wire, the statuses, and the SQL that makes its document."""
