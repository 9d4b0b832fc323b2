"""Relays: events go from the feed to brokers (NATS JetStream, RabbitMQ, Kafka), each at least once."""
