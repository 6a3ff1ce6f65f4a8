"""The bundled demo model: corpus generator, tokenizer, training and evaluation."""
