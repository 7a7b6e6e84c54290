"""From raw text to sentences of token ids: sources, sentences, tokenizers."""
