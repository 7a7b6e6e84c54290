"""What `import bertjax` offers: models, corpora, runs and registration, for Python programs and notebooks."""
