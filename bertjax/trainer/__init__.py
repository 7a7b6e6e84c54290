"""What pre-training and fine-tuning share: the train step, the loop, metrics and progress."""
