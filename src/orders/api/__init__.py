"""The HTTP edge: the routes, by what they are about, and how they read what is asked and write what is answered."""
