"""Fine-tuning: from a pre-trained encoder and a task to scores and a model that answers."""
