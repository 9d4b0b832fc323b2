"""From a POST to a 201: the request, the queue, the batch, and what is mended when a process dies on the way."""
