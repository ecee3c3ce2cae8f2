"""Training: data, recipes and the four stages. Nothing outside this folder imports it."""
