"""An order as all journeys know it: the model, the wire format, the statuses, and the SQL that makes its document."""
