"""From a prompt to a stream of tokens: decoding modes, sampling, key/value caches and the engine."""
