"""What may happen to a model's inputs, at rising strength: of images, of texts, of numbers."""
