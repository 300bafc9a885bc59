"""The language model's side of an answer: prompt, decoder, sampling, streamed text."""
