"""The language model: configuration, Qwen2 main layers, MCTP modules, audio input, strict checkpoint loading.

Importing `vita.model.causal_lm` registers the model with transformers' Auto classes.
"""
