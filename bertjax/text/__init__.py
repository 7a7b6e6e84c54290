"""From raw text to sentences of token ids: sources, sentence splitting, tokenizers."""
