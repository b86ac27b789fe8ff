//! Sockets, shards and the clock under an MQTT engine.
