"""The HTTP kit: what happens to every request before its route, and to every answer after it. It knows no journey."""
