"""Relays: the feed goes on to brokers (NATS JetStream, RabbitMQ, Kafka), each event at least once, in its order's order."""
